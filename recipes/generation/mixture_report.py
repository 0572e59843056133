def report(rows, settings): return ""
def pictures(rows, settings, folder): return []
