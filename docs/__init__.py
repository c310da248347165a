"""The pages, what is made of the code when they become a site, and what checks them.

`hooks` is what mkdocs calls; `commands` and `contract` make the references; `checks` reads every page,
its scripts with `shell`.
"""
