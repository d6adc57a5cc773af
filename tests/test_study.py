"""A study plans its stages once, shares equal ones, and refuses comparisons that are not fair."""

import pytest

from tessella.experiments.cli import forward_to_stages
from tessella.experiments.compose import compose_config
from tessella.experiments.study import all_stages, fairness, plan_stages


def test_designs_share_the_stages_they_have_in_common():
    planned = plan_stages(compose_config("ablate", ["seeds=[0,1]"]))
    for seed in (0, 1):
        assert planned["single_vq"][seed]["vq"] is planned["decoupled"][seed]["vq"]
        assert planned["single_vq"][seed]["unified"] is not planned["decoupled"][seed]["unified"]
    assert planned["single_vq"][0]["vq"] is not planned["single_vq"][1]["vq"]
    assert len(list(all_stages(planned))) == 16


def test_longest_chains_come_first_and_inputs_arrive_as_overrides():
    planned = plan_stages(compose_config("ablate"))["decoupled"][0]
    assert planned["vq"].depth > planned["siglip"].depth > planned["unified"].depth
    folders = {planned["vq"]: "/runs/vq", planned["siglip"]: "/runs/siglip"}
    assert "warm_start='/runs/vq'" in planned["siglip"].train_overrides(folders)
    unified = planned["unified"].train_overrides(folders)
    assert "tokenizer.generation.folder='/runs/vq'" in unified
    assert "tokenizer.understanding.folder='/runs/siglip'" in unified


def test_overrides_of_a_study_reach_its_stages_whatever_they_contain():
    given = ["study=mine", "data.train=[a,'b c']", "recipe.unified.steps=3", "seeds=[1]"]
    cfg = compose_config("ablate", forward_to_stages(given))
    assert cfg.study == "mine"
    assert list(cfg.overrides) == ["data.train=[a,'b c']", "recipe.unified.steps=3"]
    for stage in all_stages(plan_stages(cfg)):
        assert "recipe.unified.steps=3" in stage.overrides


def test_a_stage_that_builds_on_a_later_one_is_named():
    cfg = compose_config("ablate", ["+designs.single_vq.stages.vq.from.warm_start=unified"])
    with pytest.raises(ValueError, match="'vq' builds on 'unified'"):
        plan_stages(cfg)


def test_fairness_compares_designs_seed_by_seed():
    def record(order: str) -> dict:
        same = {"llm_init": "same", "steps": 10, "batch_size": 4, "precision": "32-true"}
        return {"data_order": order, "data": {"fingerprint": {"train": "t"}}, **same}

    checks = fairness({"a": {"0": record("x"), "1": record("y")}, "b": {"0": record("x"), "1": record("z")}})
    assert checks["llm_init"]["equal"]
    assert checks["optimizer_steps"]["equal"]
    assert not checks["data_order"]["equal"]
    assert checks["data_order"]["by_seed"]["1"] == {"a": "y", "b": "z"}
