# %% [markdown]
# # A latency histogram
# Measures random reads, and draws their latencies. Each `# %%` is a cell of a notebook (Jupyter with jupytext, VS Code, Spyder);
# as a program: `python latency.py [ADDRESS] [IMAGE.svg]`.

# %%
import sys

import numpy as np

import upcie

address = sys.argv[1] if len(sys.argv) > 1 else "emu:size=1G"
image = sys.argv[2] if len(sys.argv) > 2 else "latency.svg"
controller = upcie.Controller(address)
namespace = controller.namespace(1)
print(namespace)

# %% [markdown]
# Measure: one second of random reads of 4 KiB, 32 at a time. The result is an object.

# %%
result = upcie.perf(namespace, rw="randread", block_size=4096, depth=32, seconds=1.0)
print(result)
for percent in (50, 99, 99.9):
    print(f"p{percent}: {result.percentile(percent) / 1000:.1f} µs")

# %% [markdown]
# The buckets as numpy arrays, added up to some fifty bars of equal width on a logarithmic axis.

# %%
buckets = np.array(result.histogram(), dtype=np.float64)
edges = np.geomspace(buckets[:, 0].min(), buckets[:, 1].max() + 1, 51)
counts, _ = np.histogram(buckets[:, 1], bins=edges, weights=buckets[:, 2])
assert counts.sum() == result.ios + result.errors

# %% [markdown]
# Draw it: with matplotlib if it is installed, otherwise as an SVG by hand.

# %%
try:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3))
    axes.stairs(counts, edges / 1000, fill=True)
    axes.set(xscale="log", xlabel="latency in µs", ylabel="reads", title=f"{result.iops:,.0f} IOPS on {controller.name}")
    figure.savefig(image)
except ImportError:
    width, height = 800, 240
    bar = width / len(counts)
    bars = "".join(
        f'<rect x="{index * bar:.1f}" y="{height - count / counts.max() * height:.1f}" width="{bar:.1f}" '
        f'height="{count / counts.max() * height:.1f}"><title>{edge / 1000:.1f} µs: {count:.0f}</title></rect>'
        for index, (edge, count) in enumerate(zip(edges, counts))
    )
    with open(image, "w") as file:
        file.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" fill="steelblue">{bars}</svg>\n')
print(f"drawn to {image}")

# %%
controller.close()
