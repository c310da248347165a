"""`miniml bench planner`: our planner beside other ways to batch, on the same arrivals, simulated.

truth      what a batch takes on a simulated lane
simulator  lanes, arrivals and callers as events, without a clock
policies   how others batch; ours drives `serving.planner` as `serving.dispatch` does
trace      arrivals: read from a record, or made with a seed
decisions  what a decision of ours costs this machine, measured
record     every text's times, and what follows from them; tables and page show it

What is not simulated costs nothing here: HTTP, tokenizing, the handover between threads.
"""
