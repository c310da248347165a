"""What made-up texts are made of: lengths as measured on real ones, and questions with gaps.

Only data. A load test needs texts whose lengths are real and whose words a tokenizer knows; what
they say is of no matter to a server's speed.
"""

from __future__ import annotations

# (share of texts that are no longer, words). Reviews: 10,000 of a public set of restaurant and shop
# reviews (mean 131 words). Queries: the training half of BANKING77, questions to a bank's assistant
# (mean 12 words).
REVIEW_WORDS = (
    *((0.00, 1), (0.05, 16), (0.10, 27), (0.15, 36), (0.20, 45), (0.25, 54), (0.30, 62)),
    *((0.35, 71), (0.40, 81), (0.45, 90), (0.50, 101), (0.55, 112), (0.60, 124), (0.65, 138)),
    *((0.70, 154), (0.75, 173), (0.80, 196), (0.85, 227), (0.90, 272), (0.95, 348), (0.99, 550)),
    (1.00, 945),
)
QUERY_WORDS = (
    *((0.00, 2), (0.05, 5), (0.10, 6), (0.15, 6), (0.20, 7), (0.25, 7), (0.30, 8), (0.35, 8)),
    *((0.40, 9), (0.45, 9), (0.50, 10), (0.55, 10), (0.60, 11), (0.65, 11), (0.70, 12)),
    *((0.75, 13), (0.80, 15), (0.85, 17), (0.90, 21), (0.95, 29), (0.99, 43), (1.00, 79)),
)

# A gap is filled with one of what commas part.
QUERY_GAPS = {
    "thing": "card,transfer,top-up,refund,payment,direct debit,PIN,account,statement,cash"
    " withdrawal,virtual card,exchange rate,passcode,identity check",
    "state": "pending,declined,missing,blocked,wrong,still not here,reverted,charged twice,"
    "delayed,cancelled",
    "where": "abroad,in Spain,at an ATM,in the app,online,at the supermarket,in Poland",
    "when": "yesterday,this morning,last week,two days ago,on Monday,just now",
    "amount": "£1,20 euros,$500,a fee,£30,ten pounds,more than I expected",
}
QUERY_SENTENCES = (
    "Why is my {thing} {state}?",
    "How do I change my {thing}?",
    "My {thing} was {state} when I used it {where}.",
    "I made a {thing} {when} and it is {state}, what should I do?",
    "Can I get a new {thing} {where}?",
    "I was charged {amount} for a {thing} {where} and I don't recognize it.",
    "Is there a limit on my {thing}?",
    "What is the {thing} and how long does it take?",
    "Please help, my {thing} is {state}!",
    "how can i see where my {thing} is",
    "I need to know whether you support a {thing} {where}.",
    "It says {state} in the app, but I received {amount} {when}.",
    "Could someone explain the extra {amount} on my {thing}?",
    "I think somebody used my {thing} {where} without asking me.",
    "Where's the {thing} from {when}?",
    "Do I have to pay {amount} if the {thing} is {state}?",
)
