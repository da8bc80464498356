"""Write a report of a study for colleagues: one file, as HTML, Markdown or JSON.

`data.report_data` collects what a report says as plain values, which is the JSON. `layout` arranges these as headings,
paragraphs, tables and pictures, which `html` and `markdown` write.
"""
