"""Where it is kept: engine, tables, migrations. Knows SQL; what the rows mean is others' business."""
