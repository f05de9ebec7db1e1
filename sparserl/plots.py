"""placeholder"""
def plot_run(path, out): pass
