"""Reading what `miniml bench` left behind: tables, pages, comparisons. It measures nothing.

records    a file -> `Record`: its certificate and its document
kinds/     a record -> `Findings`: what each system showed under each load
sheets     findings -> tables, which `page` shows as HTML and `results` as Markdown
comparing  two records -> what became better or worse, beyond chance
"""
