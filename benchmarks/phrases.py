"""What synthetic texts are made of: lengths as measured on real ones, and sentences with gaps.

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
REVIEW_GAPS = {
    "thing": "soup,room,coffee,bread,bed,curry,salad,haircut,jacket,lobby,parking,fish,dessert,"
    "breakfast,phone case,menu,terrace,shower,wine list,massage,pizza,service desk",
    "good": "lovely,excellent,spotless,delicious,charming,fresh,generous,friendly,perfect,quiet,"
    "affordable,wonderful,well made,surprisingly good",
    "bad": "cold,bland,overpriced,dirty,noisy,disappointing,stale,rude,cramped,broken,greasy,"
    "much too salty,slow,falling apart",
    "who": "waiter,manager,receptionist,owner,chef,barber,driver,lady at the till,bartender,"
    "technician,host,hairdresser",
    "time": "Tuesday,Saturday night,last week,our anniversary,the holidays,lunch,a rainy Sunday,"
    "my birthday,the long weekend,an early breakfast",
    "number": "two,three,five,ten,twenty,forty-five,a couple of,nearly thirty",
}
REVIEW_SENTENCES = (
    "The {thing} was {good} and the {who} could not have been nicer.",
    "We came here on {time} and waited {number} minutes before anyone took our order.",
    "Honestly, the {thing} was {bad}, and so was the {thing}.",
    "I have been here {number} times now, and the {thing} has always been {good}.",
    "When I asked the {who} about it, I was told that nothing could be done!",
    "My husband ordered the {thing}, which arrived {bad}; mine was {good}, though.",
    "For the price you pay, you'd expect the {thing} to be at least {good}.",
    "The {who} apologized, offered us a {thing} on the house, and we left happy.",
    "Don't bother with the {thing} - it's {bad} and it costs $14.99.",
    "It's a small place near the station, easy to miss, but worth looking for.",
    "After {number} days it stopped working, and the {who} refused to give me my money back.",
    "Would I come back? Probably, if only for the {thing}.",
    "The atmosphere is {good}, the music isn't too loud, and there is plenty of parking outside.",
    "I really wanted to love this place because everyone keeps talking about it.",
    "Our {who} forgot the {thing}, brought the wrong bill, and never checked on us again.",
    "Everything was {good}: the {thing}, the {thing}, even the view from the window.",
    "Five stars for the {who}, one star for the {thing}, so three it is.",
    "They were out of half the menu by {time}, which is just not acceptable.",
    "I can't recommend the {thing} enough; it is simply the best in town.",
    "The place has gone downhill since the new {who} took over, sad to say.",
    "Portions are huge, so we took {number} boxes home and ate the rest the next day.",
    "If you're looking for something {good}, this is it.",
    "It was {bad}.",
    "Never again!",
    "Great {thing}.",
)
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
