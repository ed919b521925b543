"""A look inside of a translation: what is shown is what the model does."""

from __future__ import annotations

import builtins
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.config import DecodingConfig, ModelConfig
from seq2seq.decoding.translator import Translator
from seq2seq.errors import OptionError
from seq2seq.inspection.explaining import MOST_PIECES, Explanation, explain_translation
from seq2seq.inspection.labels import printable, shortened
from seq2seq.inspection.report import _percent, format_explanation
from seq2seq.model.transformer import EOS, Transformer

Cli = Callable[..., Any]
SENTENCE = "the small cat sees the old dog"
TRANSLATION = "der kleine Katze sieht der alte Hund"
ONE = ("--threads", "1")


@pytest.fixture(scope="module")
def translator(tiny_run: Any) -> Translator:
    return Translator(tiny_run.path)


@pytest.fixture(params=["post", "pre"])
def untrained(request: pytest.FixtureRequest, translator: Translator) -> Translator:
    """Random weights: two layers of either norm, three decoder layers, the pieces of the trained run."""
    torch.manual_seed(5)
    config = ModelConfig(
        d_model=24, num_heads=3, d_ff=40, num_encoder_layers=2, num_decoder_layers=3, norm=request.param,
        positions="learned", max_positions=30,
    )  # fmt: skip
    size = translator.tokenizer.source_vocab_size
    model = Transformer(config, size, size, shared=True).eval()
    return Translator.of(model, translator.tokenizer, DecodingConfig(beam_size=2))


def test_it_is_about_the_translation_that_is_found(translator: Translator) -> None:
    found = translator.translate([SENTENCE])[0].hypotheses[0]
    explained = explain_translation(translator, SENTENCE)
    assert (explained.source, explained.translation, explained.given) == (SENTENCE, found.text, False)
    assert explained.target_pieces == [*found.pieces, "</s>"]
    assert explained.log_probabilities.tolist() == pytest.approx(found.piece_log_probabilities, abs=1e-3)
    greedy = explain_translation(translator, SENTENCE, beam_size=1)
    assert [best[0][0] for best in greedy.candidates] == greedy.target_pieces
    assert greedy.ranks == [1] * len(greedy.target_pieces)


def test_a_translation_that_is_given_is_scored_as_by_score(untrained: Translator) -> None:
    explained = explain_translation(untrained, SENTENCE, TRANSLATION, top=4)
    [score] = untrained.score([SENTENCE], [TRANSLATION])
    assert explained.given and explained.target_pieces == [*score.pieces, "</s>"]
    assert explained.log_probabilities.tolist() == pytest.approx(score.piece_log_probabilities, abs=1e-4)
    assert explained.log_probability == pytest.approx(score.log_probability, abs=1e-3)
    for step, candidates in enumerate(explained.candidates):
        values = [probability for _, probability in candidates]
        assert len(candidates) == 4 and values == sorted(values, reverse=True)
        written, rank = explained.log_probabilities[step].exp().item(), explained.ranks[step]
        if rank <= 4:
            assert candidates[rank - 1] == (explained.target_pieces[step], pytest.approx(written, rel=1e-4))
        else:
            assert written < values[-1]


def test_attention_is_of_every_layer_and_head(untrained: Translator) -> None:
    explained = explain_translation(untrained, SENTENCE, TRANSLATION)
    source, target = len(explained.source_pieces), len(explained.target_pieces)
    assert source != target  # or a mix-up would not be seen
    assert explained.encoder.attention.shape == (2, 3, source, source)
    assert explained.decoder.attention.shape == (3, 3, target, target)
    assert explained.cross_attention.shape == (3, 3, target, source)
    for weights in (explained.encoder.attention, explained.decoder.attention, explained.cross_attention):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert explained.decoder.attention.triu(1).abs().max() == 0  # nothing sees what comes after it


def test_layers_are_seen_one_by_one(untrained: Translator) -> None:
    """The last layer says what the model says, and every state is what the layers give one after the other."""
    explained = explain_translation(untrained, SENTENCE, TRANSLATION)
    assert len(explained.by_layer) == 3
    assert [(piece, pytest.approx(p, abs=1e-5)) for piece, p in explained.by_layer[-1]] == [
        candidates[0] for candidates in explained.candidates
    ]
    model, tokenizer = untrained.model, untrained.tokenizer
    with torch.no_grad():
        source = torch.tensor([[*tokenizer.encode_source([SENTENCE])[0], EOS]])
        embedded = model.embed(source, model.source_embedding, model.source_positions)
        x, mask = embedded, torch.ones(1, 1, 1, source.shape[1], dtype=torch.bool)
        for number, layer in enumerate(model.encoder_layers):
            x = layer(x, mask)
            expected = torch.cosine_similarity(x[0], embedded[0], dim=-1)
            torch.testing.assert_close(explained.encoder.similarity[number], expected)
    assert explained.decoder.similarity.shape == (3, len(explained.target_pieces))


def test_active_neurons_are_counted_before_the_activation(untrained: Translator) -> None:
    with torch.no_grad():
        for number, layer in enumerate(untrained.model.encoder_layers):
            layer.feed_forward.in_weight.zero_()
            layer.feed_forward.in_bias.fill_(-1.0)
            layer.feed_forward.in_bias[: 10 * (number + 1)] = 1.0
    explained = explain_translation(untrained, SENTENCE, TRANSLATION)
    assert explained.encoder.active.tolist() == pytest.approx([0.25, 0.5])
    assert all(0 < share < 1 for share in explained.decoder.active.tolist())


def test_neighbours_are_those_with_the_highest_cosine(untrained: Translator) -> None:
    model, tokenizer = untrained.model, untrained.tokenizer
    [first, *_] = tokenizer.encode_source([SENTENCE])[0]
    twin = next(i for i in range(4, tokenizer.source_vocab_size) if i != first)
    with torch.no_grad():
        model.source_embedding[twin] = 3 * model.source_embedding[first]
    explained = explain_translation(untrained, SENTENCE, TRANSLATION, top=5)
    pieces = tokenizer.source_pieces([first, twin])
    assert explained.neighbours[0][0] == (pieces[1], pytest.approx(1.0, abs=1e-5))
    assert all(len(similar) == 5 and pieces[0] not in dict(explained.neighbours[0]) for similar in explained.neighbours)
    every = explain_translation(untrained, SENTENCE, TRANSLATION, top=100).neighbours[0]
    assert len(every) == tokenizer.source_vocab_size - 4  # all but itself, padding, unknown and begin-of-sentence
    assert not {"<pad>", "<unk>", "<s>"} & dict(every).keys()


@pytest.mark.parametrize(
    ("source", "target", "changes", "message"),
    [
        ("  ", None, {}, "the sentence is empty"),
        ("a\nb", None, {}, "the sentence has several lines"),
        ("a", "b\nc", {}, "the translation has several lines"),
        (["a"], None, {}, r"the sentence is \['a'\], not text"),
        ("a", b"b", {}, "the translation is b'b', not text"),
        (SENTENCE, None, {"top": 2.5}, "top = 2.5"),
        (SENTENCE, None, {"top": True}, "top = True"),
        ("cat " * MOST_PIECES, None, {}, "at most 29 can be looked at"),
        (SENTENCE, "Hund " * 40, {}, "the translation has"),
        (SENTENCE, None, {"top": 0}, "top = 0"),
        (SENTENCE, None, {"beam_size": 0}, "beam_size"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    untrained: Translator, source: Any, target: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain_translation(untrained, source, target, **changes)


def test_what_translates_whole_is_explained_whole(translator: Translator) -> None:
    """A sentence of as many pieces as the configuration lets through is not too long."""
    pieces = len(translator.tokenizer.encode_source([SENTENCE])[0])
    for most in (pieces, pieces - 1):
        config = translator.config.model_copy(update={"max_source_length": most})
        limited = Translator.of(translator.model, translator.tokenizer, config)
        if limited.translate([SENTENCE])[0].complete:
            assert len(explain_translation(limited, SENTENCE).source_pieces) == pieces + 1
        else:
            with pytest.raises(OptionError, match=f"at most {most} can be looked at"):
                explain_translation(limited, SENTENCE)


def test_an_ensemble_is_refused(tiny_run: Any) -> None:
    with pytest.raises(OptionError, match="name one run"):
        explain_translation(Translator([tiny_run.path, tiny_run.path]), SENTENCE)


def test_nothing_stays_behind_in_the_model(translator: Translator) -> None:
    before = translator.translate([SENTENCE])[0]
    explain_translation(translator, SENTENCE)
    assert not any(module._forward_hooks for module in translator.model.modules())
    assert translator.translate([SENTENCE])[0] == before


def test_a_translation_that_is_cut_has_no_end(translator: Translator) -> None:
    short = Translator.of(
        translator.model, translator.tokenizer, translator.config.model_copy(update={"max_extra_length": 0})
    )
    found = short.translate(["cat"], length_penalty=0.0)[0].hypotheses[0]
    explained = explain_translation(short, "cat")
    assert found.ended == (explained.target_pieces[-1] == "</s>")
    assert len(explained.log_probabilities) == len(explained.target_pieces)


def test_what_is_hopelessly_improbable_has_a_finite_logarithm(untrained: Translator) -> None:
    with torch.no_grad():
        untrained.model.output_weight.mul_(300)
    explained = explain_translation(untrained, SENTENCE, TRANSLATION)
    [score] = untrained.score([SENTENCE], [TRANSLATION])
    assert explained.log_probabilities.min() < -150  # its probability is no number of float32
    assert explained.log_probability == pytest.approx(score.log_probability, rel=1e-4)
    json.dumps(explained.to_dict(), allow_nan=False)
    assert "<0.0001%" in format_explanation(explained)


def test_unknown_text_is_shown_as_it_stands(untrained: Translator) -> None:
    explained = explain_translation(untrained, "the 猫 cat", "die 😀 Katze")
    sources, targets = explained.source_pieces, explained.target_pieces
    assert "<unk:猫>" in sources and "<unk:😀>" in targets and "<unk>" not in sources + targets
    assert explained.neighbours[sources.index("<unk:猫>")] == []
    assert all(similar for piece, similar in zip(sources, explained.neighbours, strict=True) if "unk" not in piece)
    assert "<unk:猫>" in format_explanation(explained)
    control = explain_translation(untrained, "the \t\x1b cat", TRANSLATION).source_pieces
    assert [piece for piece in control if "unk" in piece] == ["<unk:\\t\\x1b>"]


def test_unknown_text_is_told_once_and_of_either_side(translator: Translator, run_cli: Cli, tiny_run: Any) -> None:
    remark = "seq2seq: the {} has text that the model does not know, taken as <unk>: {!r}\n"
    result = run_cli("explain", tiny_run.path, "the 猫\tcat 猫", *ONE)
    assert (result.code, result.err) == (0, remark.format("sentence", "猫\t 猫"))
    result = run_cli("explain", tiny_run.path, "the 猫", "--target", "die 😀 Katze", *ONE)
    assert (result.code, result.err) == (0, remark.format("sentence", "猫") + remark.format("translation", "😀"))


def test_a_loop_is_told_and_the_probability_is_of_all_pieces(untrained: Translator) -> None:
    said: list[str] = []
    config = untrained.config.model_copy(update={"max_extra_length": 20})
    loops = Translator.of(untrained.model, untrained.tokenizer, config, said.append)
    explained = explain_translation(loops, "cat", length_penalty=3.0)
    loops.warn = lambda text: None
    [found] = loops.translate(["cat"], length_penalty=3.0)[0].hypotheses
    assert found.repetition  # as random weights mostly do
    assert explained.repetition and explained.translation == found.text
    assert said == ["the translation runs into a loop, where its text is cut"]
    pieces = len(explained.target_pieces)
    assert pieces > len(untrained.tokenizer.encode_target([found.text])[0]) + 1
    assert explained.log_probability == pytest.approx(found.log_probability, abs=1e-3)
    assert f"of all {pieces} pieces below; the translation above is cut" in format_explanation(explained)
    assert explained.to_dict()["repetition"] is True
    assert not explain_translation(loops, "cat", found.text).repetition  # given, it is not cut


@pytest.mark.parametrize(
    ("text", "most", "short"),
    [
        ("▁horse", 6, "▁horse"), ("▁horses", 6, "▁hors…"), ("<unk:猫猫猫猫>", 12, "<unk:猫猫猫…"),
        ("猫猫猫", 6, "猫猫猫"), ("猫猫猫", 5, "猫猫…"), ("猫猫猫", 4, "猫…"), ("a b", 3, "a b"), ("a bc", 3, "a…"),
    ],
)  # fmt: skip
def test_long_text_is_shortened_to_columns(text: str, most: int, short: str) -> None:
    assert shortened(text, most) == short


def test_what_cannot_be_seen_is_escaped() -> None:
    assert printable("a\t猫\x1b ▁") == "a\\t猫\\x1b ▁"


def test_a_long_unknown_word_does_not_widen_the_text(untrained: Translator) -> None:
    word = "猫" * 50
    explained = explain_translation(untrained, f"the {word} cat {word}狗", "die Katze")
    assert f"<unk:{word}>" in explained.source_pieces  # as in JSON
    _, *tables = format_explanation(explained).split("\n\n")
    assert "<unk:猫猫猫猫猫…" in "".join(tables) and "猫" * 6 not in "".join(tables)
    places = [i for i, piece in enumerate(explained.source_pieces, 1) if piece.startswith("<unk:")]
    for place in places:  # shown alike, they have numbers
        assert f"<unk:猫猫猫猫猫…({place})" in "".join(tables)
    assert len(places) == 2


@pytest.mark.parametrize(
    ("probability", "text"),
    [(1.0, "100.0%"), (0.25, "25.0%"), (0.00999, "1.0%"), (0.0099, "0.99%"), (1.25e-5, "0.0013%"), (1e-9, "<0.0001%")],
)
def test_probabilities_have_digits_that_tell(probability: float, text: str) -> None:
    assert _percent(probability) == text


def test_a_line_may_end_as_lines_do(untrained: Translator) -> None:
    explained = explain_translation(untrained, f"{SENTENCE}\n", f"{TRANSLATION}\n")
    assert (explained.source, explained.translation) == (SENTENCE, TRANSLATION)


def explained_by_hand() -> Explanation:
    """Numbers that can be recognised in a text: two source pieces, three steps, one layer with one head."""
    from seq2seq.inspection.explaining import Stack

    def stack(size: int, share: float) -> Stack:
        attention = torch.eye(size).expand(1, 1, size, size)
        return Stack(torch.full((1, size), 0.5), torch.tensor([share]), attention)

    return Explanation(
        source="狗", translation="ja ja", given=True, repetition=False, source_pieces=["狗", "</s>"],
        target_pieces=["▁ja", "▁ja", "</s>"], neighbours=[[("▁猫", 0.75)], [("▁x", 0.25)]],
        encoder=stack(2, 0.125), decoder=stack(3, 0.5),
        cross_attention=torch.tensor([[[[0.9, 0.1], [0.004, 0.996], [0.5, 0.5]]]]),
        log_probabilities=torch.tensor([0.5, 0.25, 0.0000125]).log(), ranks=[1, 2, 4],
        candidates=[[("▁ja", 0.5)], [("▁nein", 0.7)], [("</s>", 0.125)]],
        by_layer=[[("▁ja", 0.5), ("▁nein", 0.7), ("</s>", 0.125)]],
    )  # fmt: skip


def test_the_report_says_what_was_seen() -> None:
    report = format_explanation(explained_by_hand(), top=2)
    blocks = [block.splitlines() for block in report.split("\n\n")]
    assert blocks[0] == [
        "source           狗", "translation      ja ja  (given)", "log-probability  -13.3692, -4.4564 a piece",
    ]  # fmt: skip
    titles, tables = [block[0] for block in blocks[2:]], [block[1:] for block in blocks[2:]]
    assert all("one head" in title for title in titles if "attention" in title.lower())
    embeddings, encoder, inputs, self_attention, decoder, cross, feed_forward, by_layer, probabilities = tables
    assert embeddings == ["  1  狗    ▁猫 0.75", "  2  </s>  ▁x 0.25"]  # wide characters count twice
    assert encoder == ["        layer 1", "  狗    0.50", "  </s>  0.50"]
    assert inputs == ["          layer 1", "  <s>     0.50", "  ▁ja(1)  0.50", "  ▁ja(2)  0.50"]
    assert self_attention == ["        layer 1", "  狗    狗 100", "  </s>  </s> 100"]
    assert decoder == ["          layer 1", "  ▁ja(1)  <s> 100", "  ▁ja(2)  ▁ja(1) 100", "  </s>    ▁ja(2) 100"]
    assert cross[1:] == ["  ▁ja(1)  狗 90 </s> 10", "  ▁ja(2)  </s> 100", "  </s>    狗 50 </s> 50"]
    assert [line.split() for line in feed_forward] == [["layer", "1"], ["encoder", "12"], ["decoder", "50"]]
    assert by_layer[2] == "  ▁ja(2)  ▁nein 70.0%"
    assert probabilities[1:] == [
        "  2  ▁ja   25.0%    -1.39   #2  ▁nein 70.0%",
        "  3  </s>  0.0013%  -11.29  #4  </s> 12.5%",
    ]
    assert not any(line != line.rstrip() for block in blocks for line in block)


@pytest.mark.parametrize("width", [1, 40, 80, 200])
def test_wide_tables_go_on_below_themselves_and_lose_nothing(untrained: Translator, width: int) -> None:
    explained = explain_translation(untrained, SENTENCE, TRANSLATION, top=5)
    narrow, wide = (format_explanation(explained, 5, columns) for columns in (width, 10_000))
    blocks = zip(narrow.split("\n\n")[2:], wide.split("\n\n")[2:], strict=True)
    for one, other in blocks:
        rows = one.splitlines()[1:]
        # A cell alone may be wider than the width.
        assert all(len(row) <= width or len(re.split(r" {2,}", row.strip())) <= 2 for row in rows)
        assert Counter(one.split()).keys() == Counter(other.split()).keys()
        assert len(rows) >= len(other.splitlines()) - 1


def test_json_has_every_number(run_cli: Cli, tiny_run: Any, translator: Translator) -> None:
    result = run_cli(
        "explain", tiny_run.path, SENTENCE, "--target", TRANSLATION, "--format", "json", "--top", "2", *ONE
    )
    assert (result.code, result.err) == (0, "")
    record = json.loads(result.out)
    explained = explain_translation(translator, SENTENCE, TRANSLATION, top=2)
    assert record.keys() == {field.name for field in dataclasses.fields(Explanation)} | {"log_probability"}
    assert record["given"] is True and record["translation"] == TRANSLATION
    for name in ("source_pieces", "target_pieces"):
        assert record[name] == getattr(explained, name)
    assert record["ranks"] == explained.ranks
    assert record["log_probabilities"] == pytest.approx(explained.log_probabilities.tolist(), abs=1e-3)
    torch.testing.assert_close(torch.tensor(record["cross_attention"]), explained.cross_attention, atol=1e-4, rtol=0)
    for name in ("encoder", "decoder"):
        stack = getattr(explained, name)
        assert record[name].keys() == {"similarity", "active", "attention"}
        for part, values in record[name].items():
            torch.testing.assert_close(torch.tensor(values), getattr(stack, part), atol=1e-4, rtol=1e-3)
    assert [len(step) for step in record["candidates"]] == [2] * len(explained.target_pieces)


def test_the_command_prints_the_report(run_cli: Cli, tiny_run: Any, translator: Translator) -> None:
    result = run_cli("explain", tiny_run.path, SENTENCE, "--top", "1", "--beam-size", "1", *ONE)
    assert (result.code, result.err) == (0, "")
    explained = explain_translation(translator, SENTENCE, top=1, beam_size=1)
    assert result.out == format_explanation(explained, 1) + "\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["", *ONE], ["the sentence is empty"]),
        ([SENTENCE, "--format", "xml"], ["--format xml", "text or json"]),
        ([SENTENCE, "--heads", "all", "--plot", "a.png"], ["--heads all", "encoder, decoder or cross"]),
        ([SENTENCE, "--heads", "cross"], ["--heads cross", "--plot"]),
        ([SENTENCE, "--plot", "a.gif"], ["--plot a.gif", ".png, .pdf or .svg"]),
        ([SENTENCE, "--plot", "no/such/a.png"], ["--plot no/such/a.png", "there is no folder"]),
        ([SENTENCE, "--target", "x", "--beam-size", "2"], ["--target", "--beam-size"]),
        ([SENTENCE, "--target", "x", "--length-normalization", "wu"], ["--target"]),
        (["a\udcff"], ["SENTENCE", "is not UTF-8 text"]),
        ([SENTENCE, "--target", "a\udcff"], ["--target", "is not UTF-8 text"]),
        ([SENTENCE, "--top", "0"], ["--top"]),
        (["- the cat"], ["No such option: -;", "before a sentence that begins with a dash write --"]),
        ([SENTENCE, "--beam-size", "0", *ONE], ["--beam-size 0"]),
    ],
)
def test_mistakes_are_one_line(
    run_cli: Cli, tiny_run: Any, tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    result = run_cli("explain", tiny_run.path, *arguments, cwd=tmp_path)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("seq2seq: ") and result.err.count("\n") == 1
    assert all(part in result.err for part in parts), result.err
    assert not list(tmp_path.iterdir())


def test_a_picture_takes_the_place_of_pictures_alone(run_cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "thesis.png").write_text("my thesis")
    (tmp_path / "thesis.pdf").write_bytes(b"%PDF-1.4 my thesis")
    assert run_cli("explain", tiny_run.path, SENTENCE, "--plot", "thesis.pdf", cwd=tmp_path).code == 2
    result = run_cli("explain", tiny_run.path, SENTENCE, "--plot", "thesis.png", cwd=tmp_path)
    assert (
        result.code == 2
        and "--plot thesis.png: holds something else than a picture that this command drew; name" in result.err
    )
    assert (tmp_path / "thesis.png").read_text() == "my thesis"
    for name in ("a.png", "a.pdf", "a.svg"):
        for _ in range(2):
            assert run_cli("explain", tiny_run.path, SENTENCE, *ONE, "--plot", name, cwd=tmp_path).code == 0


def test_a_sentence_may_begin_with_a_dash(run_cli: Cli, tiny_run: Any) -> None:
    result = run_cli("explain", tiny_run.path, *ONE, "--", "- the cat")
    assert result.code == 0 and result.lines[0] == "source           - the cat"
    assert "begins with a dash" not in run_cli("explain", tiny_run.path, SENTENCE, "--plto", "a.png").err
    assert "begins with a dash" not in run_cli("translate", tiny_run.path, "-x").err  # takes no sentence


class TestPictures:
    @pytest.fixture(autouse=True)
    def matplotlib(self) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib is an extra")

    @pytest.fixture
    def drawn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
        """The figure that is drawn of an explanation."""
        from seq2seq.inspection import pictures

        figures: list[Any] = []
        save = pictures._save

        def keep(figure: Any, path: Path) -> bool:
            figures.append(figure)
            return save(figure, path)

        def draw(explained: Explanation, heads: Any = None) -> Any:
            pictures.draw_attention(explained, tmp_path / "a.png", heads)
            return figures[-1]

        monkeypatch.setattr(pictures, "_save", keep)
        return draw

    @pytest.mark.parametrize(("suffix", "begin"), [("png", b"\x89PNG"), ("PDF", b"%PDF"), ("svg", b"<?xml")])
    def test_a_picture_is_of_the_kind_that_its_name_says(self, tmp_path: Path, suffix: str, begin: bytes) -> None:
        from seq2seq.inspection.pictures import draw_attention

        path = tmp_path / f"a.{suffix}"
        draw_attention(explained_by_hand(), path)
        assert path.read_bytes().startswith(begin)

    def test_the_command_draws(self, run_cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
        options = ("--plot", "a.png", "--heads", "cross")
        result = run_cli("explain", tiny_run.path, SENTENCE, *options, *ONE, cwd=tmp_path)
        assert (result.code, result.err) == (0, "")
        assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

    def test_panels_are_kinds_by_layers_or_layers_by_heads(self, untrained: Translator) -> None:
        from seq2seq.inspection.pictures import _panels

        explained = explain_translation(untrained, SENTENCE, TRANSLATION)
        sizes = {"encoder": 2, "decoder": 3, "cross": 3}
        for kind, layers in sizes.items():
            [means] = _panels(explained, kind, False)  # type: ignore[arg-type]
            heads = _panels(explained, kind, True)  # type: ignore[arg-type]
            assert (len(means), [len(row) for row in heads]) == (layers, [3] * layers)
            for (_, mean, queries, keys), row in zip(means, heads, strict=True):
                torch.testing.assert_close(mean, torch.stack([weights for _, weights, _, _ in row]).mean(0))
                assert mean.shape == (len(queries), len(keys))

    def test_what_is_seen_is_drawn(self, tmp_path: Path) -> None:
        from seq2seq.inspection.pictures import draw_attention

        explained = dataclasses.replace(explained_by_hand(), source="dog", source_pieces=["▁dog", "</s>"])
        other = dataclasses.replace(explained, cross_attention=explained.cross_attention.flip(-1))
        pictures = set()
        for one, heads in ((explained, None), (other, None), (explained, "cross"), (other, "cross")):
            assert draw_attention(one, tmp_path / "a.png", heads)  # type: ignore[arg-type]
            pictures.add((tmp_path / "a.png").read_bytes())
        assert len(pictures) == 4

    def test_kinds_of_attention_are_those_of_the_command(self) -> None:
        from seq2seq.commands import explaining
        from seq2seq.inspection import pictures

        assert list(explaining.KINDS) == list(pictures.MEANINGS)

    @pytest.mark.parametrize("untrained", ["post"], indirect=True)
    def test_a_picture_says_what_it_shows(self, untrained: Translator, drawn: Callable[..., Any]) -> None:
        explained = explain_translation(untrained, f"{SENTENCE}\t$x$ {'д' * 99}", TRANSLATION)
        figure = drawn(explained)
        sentence, translation = figure.get_suptitle().split("\n")
        assert sentence.startswith(f"{SENTENCE}\\t$x$ ддд") and sentence.endswith("…")
        assert translation == f"{TRANSLATION} (given)"
        said = [(part.get_suptitle(), part.get_supylabel(), part.get_supxlabel()) for part in figure.subfigs]
        assert said == [
            ("encoder self-attention, mean of 3 heads", "piece of the source", "where it looks in the source"),
            ("decoder self-attention, mean of 3 heads", "piece to write", "where it looks in what is written"),
            ("attention to the source, mean of 3 heads", "piece to write", "where it looks in the source"),
        ]
        titles = [[axis.get_title() for axis in part.axes if axis.get_title()] for part in figure.subfigs]
        assert titles == [["layer 1", "layer 2"], *[["layer 1", "layer 2", "layer 3"]] * 2]
        every = drawn(dataclasses.replace(explained, given=False, repetition=True), "encoder")
        assert every.get_suptitle().endswith(f"{TRANSLATION} (cut)")
        assert [part.get_suptitle() for part in every.subfigs] == ["encoder self-attention, every head"]
        assert [axis.get_title() for axis in every.axes if axis.get_title()] == [
            f"layer {layer}, head {head}" for layer in (1, 2) for head in (1, 2, 3)
        ]

    @pytest.mark.parametrize("heads", [None, "cross"])
    def test_small_weights_are_seen_and_the_scale_says_what_they_are(
        self, drawn: Callable[..., Any], heads: str | None
    ) -> None:
        explained = explained_by_hand()
        weights = torch.full((1, 1, 3, 2), 0.02)
        weights[0, 0, 1] = torch.tensor([0.08, 0.0])
        figure = drawn(dataclasses.replace(explained, cross_attention=weights), heads)
        part = figure.subfigs[-1]
        panel, scale = part.axes
        [image] = panel.get_images()
        shades = image.norm(image.get_array())
        assert shades.tolist() == [[pytest.approx(0.5)] * 2, [1.0, 0.0], [pytest.approx(0.5)] * 2]
        assert scale.get_ylabel() == "weight (square-root scale)"
        assert scale.get_ylim() == pytest.approx((0.0, 0.08))

    @pytest.mark.parametrize("untrained", ["post"], indirect=True)
    @pytest.mark.parametrize("heads", [None, "encoder"])
    @pytest.mark.parametrize(
        "source", ["", "cat", f"a {'д' * 60} cat", SENTENCE], ids=["one layer", "short", "long", "usual"]
    )
    def test_nothing_is_drawn_over_anything_else(
        self, untrained: Translator, drawn: Callable[..., Any], source: str, heads: str | None
    ) -> None:
        explained = dataclasses.replace(explained_by_hand(), source="dog", source_pieces=["▁dog", "</s>"])
        if source:
            explained = explain_translation(untrained, source, "Katze" if source == "cat" else TRANSLATION)
        figure = drawn(explained, heads)
        boxes = [axis.get_tightbbox() for axis in figure.axes if axis.axison]  # with titles and labels
        boxes += [
            text.get_window_extent()
            for part in (figure, *figure.subfigs)
            for text in (part._suptitle, part._supxlabel, part._supylabel)
            if text is not None
        ]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
        panels = [axis.get_window_extent() for axis in figure.axes if axis.get_title()]
        assert min(min(panel.width, panel.height) for panel in panels) > 1.1 * figure.dpi  # a title is as wide

    def test_every_text_has_the_fonts_that_are_there(
        self, drawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from matplotlib.font_manager import fontManager
        from matplotlib.text import Text

        fonts = fontManager.ttflist
        noto = dataclasses.replace(next(font for font in fonts if font.name == "DejaVu Sans"), name="Noto Sans Xx")
        monkeypatch.setattr(fontManager, "ttflist", [*fonts, noto])
        texts = drawn(explained_by_hand()).findobj(Text)
        assert len(texts) > 20 and all("Noto Sans Xx" in text.get_fontfamily() for text in texts if text.get_text())

    def test_more_heads_than_fit_have_labels_of_some_size(self) -> None:
        from seq2seq.inspection.pictures import _sizes

        pieces = ["▁donaudampf…"] * 200
        side, label = _sizes([("", torch.zeros(200, 200), pieces, pieces)], 80)
        assert (side, label) == (1.0, 1.0)

    def test_a_matplotlib_that_does_not_work_is_told_before_the_search(
        self, run_cli: Cli, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(name: str, *arguments: Any) -> Any:
            if name == "seq2seq.inspection.pictures":
                raise ImportError("numpy.core.multiarray\nfailed")
            return real(name, *arguments)

        real = builtins.__import__
        monkeypatch.setattr(builtins, "__import__", broken)
        result = run_cli("explain", tiny_run.path, SENTENCE, "--plot", "a.png", cwd=tmp_path)
        assert (result.code, result.out) == (2, "")
        assert "--plot a.png: matplotlib cannot be used here (numpy.core.multiarray failed)" in result.err

    def test_characters_without_a_font_are_told_of(self, tmp_path: Path) -> None:
        from seq2seq.inspection.pictures import draw_attention

        known = dataclasses.replace(
            explained_by_hand(), source="$x$ \\alpha $\t", source_pieces=["▁$x$ \\alpha $", "</s>"]
        )
        assert draw_attention(known, tmp_path / "a.png")
        unknown = dataclasses.replace(known, source_pieces=["\ue123$x$", "</s>"])
        assert not draw_attention(unknown, tmp_path / "a.png")
