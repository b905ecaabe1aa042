"""The likeliest token, or a draw among the likely ones."""

from collections import Counter

from medqa.serve.sampling import Sampler, choose


def test_each_row_chooses_in_its_own_way() -> None:
    import torch

    logits = torch.tensor([[0.0, 3.0, 1.0], [0.0, 3.0, 1.0], [5.0, 0.0, 0.0]])
    samplers = [Sampler(), Sampler(temperature=1.0, top_p=1e-9), Sampler()]
    assert choose(logits, samplers).tolist() == [1, 1, 0]


def test_draws_follow_the_temperature_and_leave_out_the_tail() -> None:
    import torch

    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    warm = Counter(int(Sampler(1.0, 1.0, seed).draw(logits)) for seed in range(2000))
    shares = logits.softmax(-1)
    # Three standard deviations of a count of 2000 are below 70.
    assert all(abs(warm[n] - 2000 * shares[n]) < 70 for n in range(4))
    cold = Counter(int(Sampler(0.25, 1.0, seed).draw(logits)) for seed in range(200))
    assert cold[0] > 180
    # The first two have 0.88 of the probability, the first alone 0.64.
    few = {int(Sampler(1.0, 0.8, seed).draw(logits)) for seed in range(200)}
    assert few == {0, 1}


def test_a_seed_repeats_the_draws_one_after_another() -> None:
    import torch

    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(1.0, 1.0, seed)
        return [int(sampler.draw(torch.zeros(1000))) for _ in range(5)]

    assert drawn(3) == drawn(3)
    assert len({tuple(drawn(seed)) for seed in (3, 4, None, None)}) == 4
