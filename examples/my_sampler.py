"""A sampler of one's own: mutate the best function so far, and now and then try a random one.

searcher launch --sampler my_sampler:Mutation --sampler-kwargs '{"random_share": 0.2}'
"""

from searcher.samplers.contract import generator


class Mutation:
    def __init__(self, *, grammar, seed, random_share=0.3):
        self.grammar, self.seed, self.random_share, self.best = grammar, seed, random_share, None

    def ask(self, number, pending=()):
        draw = generator(self.seed, number)
        if self.best is None or draw.random() < self.random_share:
            return self.grammar.sample(draw)
        return self.grammar.mutate(self.best.choices, draw)

    def tell(self, seen):
        if seen.choices and seen.merit is not None and (self.best is None or seen.merit > self.best.merit):
            self.best = seen
