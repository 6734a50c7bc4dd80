# %% [markdown]
# # A latency histogram
# Measures random reads, and draws their latencies: as text, and as an image if its name is given. Each `# %%` is a cell of a
# notebook (Jupyter with jupytext, VS Code, Spyder); as a program: `python latency.py [ADDRESS] [IMAGE.svg]`.

# %%
import sys

import numpy as np

import upcie

address = sys.argv[1] if len(sys.argv) > 1 else "emu:size=1G"
image = sys.argv[2] if len(sys.argv) > 2 else None
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
# Draw it as text: a line for every second bar, as long as its share.

# %%
pairs = counts[::2] + counts[1::2]
for edge, count in zip(edges[::2], pairs):
    if count:
        print(f"{edge / 1000:10.1f} µs {count:10.0f} {'#' * max(1, round(60 * count / pairs.max()))}")

# %% [markdown]
# And as an image, an SVG by hand: nothing else needs to be installed.

# %%
if image:
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
