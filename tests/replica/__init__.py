"""A replica of the paper's models and datasets: same formats, same special-token layout, random weights, benign text.

It stands in for what needs a GPU and access to gated repositories, so that the whole path of ``config/paper.yaml`` runs on
a CPU: ``config.write(folder)`` makes local mirrors of everything and a config that reads them.
"""
