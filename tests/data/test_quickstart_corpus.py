"""The committed quick-start corpus and the grammar behind it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

DATA = Path(__file__).resolve().parents[2] / "data"
SPLITS = ("train", "valid", "test")


def load_generator() -> ModuleType:
    """Import data/make_quickstart.py by its path; data/ is no package."""
    spec = importlib.util.spec_from_file_location("make_quickstart", DATA / "make_quickstart.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_quickstart"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


quickstart = load_generator()
CHOOSER = quickstart.Grammar(0)
NO = quickstart.NO


def read(split: str, language: str) -> list[str]:
    return (DATA / "quickstart" / f"{split}.{language}").read_text(encoding="utf-8").splitlines()


def noun(name: str) -> object:
    return CHOOSER.by_name[name]


def adjective(name: str) -> object:
    return next(adjective for adjective in CHOOSER.adjectives if adjective.en[0] == name)


def verb(infinitive: str) -> object:
    found = [*CHOOSER.verbs, *CHOOSER.special.values()]
    return next(verb for verb in found if verb.infinitive == infinitive)


def phrase(det: str, name: str, quality: str = "", plural: bool = False) -> object:
    return quickstart.noun_phrase(noun(name), det, adjective(quality) if quality else None, plural)


def clause(subject: object, infinitive: str, tense: str, *objects: object, **others: object) -> object:
    found = verb(infinitive)
    if isinstance(subject, str):
        subject = quickstart.pronoun(subject)
    return quickstart.Clause(subject, found, tense, tuple(zip(found.slots, objects, strict=True)), **others)


# --- The files --------------------------------------------------------------------------------------------------------


def test_committed_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    quickstart.main(["--output", str(tmp_path)])
    for split in SPLITS:
        for language in ("en", "de"):
            name = f"{split}.{language}"
            assert (tmp_path / name).read_bytes() == (DATA / "quickstart" / name).read_bytes(), name


def test_sizes() -> None:
    counts = {split: len(read(split, "en")) for split in SPLITS}
    assert counts == {"train": 17000, "valid": 500, "test": 500}
    assert all(len(read(split, "de")) == counts[split] for split in SPLITS)
    assert sum(path.stat().st_size for path in (DATA / "quickstart").iterdir()) < 2_000_000


def test_no_sentence_occurs_twice_on_either_side() -> None:
    """So the splits are disjoint, and the German is a function of the English."""
    for language in ("en", "de"):
        sentences = [sentence for split in SPLITS for sentence in read(split, language)]
        assert len(set(sentences)) == len(sentences)


def test_sentences_are_clean() -> None:
    for split in SPLITS:
        for language in ("en", "de"):
            for sentence in read(split, language):
                assert sentence[0].isupper() and sentence[-1] in ".?!"
                assert sentence == " ".join(sentence.split()) and " ," not in sentence and ",," not in sentence
                assert 2 <= len(sentence.split()) <= quickstart.MAX_WORDS


def test_held_out_words_are_known_from_train() -> None:
    pairs = {split: list(map(quickstart.Pair, read(split, "en"), read(split, "de"))) for split in SPLITS}
    counts = quickstart.Counter(word for pair in pairs["train"] for word in quickstart.vocabulary(pair))
    for pair in pairs["valid"] + pairs["test"]:
        for word in quickstart.vocabulary(pair):
            assert quickstart.is_composed_number(word) or counts[word] >= quickstart.MIN_TRAIN_COUNT, word


# --- Numbers, clock, dates --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "en", "de"),
    [
        (1, "one", "eins"),
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (21, "twenty-one", "einundzwanzig"),
        (30, "thirty", "dreißig"),
        (76, "seventy-six", "sechsundsiebzig"),
        (101, "one hundred and one", "einhunderteins"),
        (342, "three hundred and forty-two", "dreihundertzweiundvierzig"),
        (1000, "one thousand", "eintausend"),
        (1005, "one thousand and five", "eintausendfünf"),
        (21000, "twenty-one thousand", "einundzwanzigtausend"),
        (
            999999,
            "nine hundred and ninety-nine thousand nine hundred and ninety-nine",
            "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
        ),
    ],
)
def test_number_words(number: int, en: str, de: str) -> None:
    assert quickstart.number_words(number) == (en, de)


@pytest.mark.parametrize(
    ("hour", "minute", "en", "de"),
    [
        (1, 0, "one o'clock", "ein Uhr"),
        (3, 30, "half past three", "halb vier"),
        (12, 30, "half past twelve", "halb eins"),
        (6, 45, "a quarter to seven", "Viertel vor sieben"),
        (1, 15, "a quarter past one", "Viertel nach eins"),
        (9, 20, "twenty past nine", "zwanzig nach neun"),
        (9, 25, "twenty-five past nine", "fünf vor halb zehn"),
        (9, 35, "twenty-five to ten", "fünf nach halb zehn"),
        (12, 55, "five to one", "fünf vor eins"),
    ],
)
def test_clock_times(hour: int, minute: int, en: str, de: str) -> None:
    assert quickstart.clock_time(hour, minute) == (en, de)


def test_dates_and_years() -> None:
    assert quickstart.date_words(1, 1) == ("the first of January", "ersten Januar")
    assert quickstart.date_words(3, 5) == ("the third of May", "dritten Mai")
    assert quickstart.date_words(7, 3, "e") == ("the seventh of March", "siebte März")
    assert quickstart.date_words(12, 10) == ("the twelfth of October", "zwölften Oktober")
    assert quickstart.date_words(20, 6) == ("the twentieth of June", "zwanzigsten Juni")
    assert quickstart.date_words(31, 12) == ("the thirty-first of December", "einunddreißigsten Dezember")
    assert quickstart.year_words(1998) == ("nineteen ninety-eight", "neunzehnhundertachtundneunzig")
    assert quickstart.year_words(2012) == ("two thousand and twelve", "zweitausendzwölf")


# --- Morphology -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("det", "name", "plural", "forms"),
    [
        ("the", "man", False, "der alte Mann/den alten Mann/dem alten Mann/des alten Mannes"),
        ("the", "woman", False, "die alte Frau/die alte Frau/der alten Frau/der alten Frau"),
        ("the", "house", False, "das alte Haus/das alte Haus/dem alten Haus/des alten Hauses"),
        ("the", "man", True, "die alten Männer/die alten Männer/den alten Männern/der alten Männer"),
        ("a", "man", False, "ein alter Mann/einen alten Mann/einem alten Mann/eines alten Mannes"),
        ("a", "woman", False, "eine alte Frau/eine alte Frau/einer alten Frau/einer alten Frau"),
        ("a", "house", False, "ein altes Haus/ein altes Haus/einem alten Haus/eines alten Hauses"),
        ("my", "house", True, "meine alten Häuser/meine alten Häuser/meinen alten Häusern/meiner alten Häuser"),
        ("our", "man", False, "unser alter Mann/unseren alten Mann/unserem alten Mann/unseres alten Mannes"),
        ("no", "man", False, "kein alter Mann/keinen alten Mann/keinem alten Mann/keines alten Mannes"),
        ("this", "house", False, "dieses alte Haus/dieses alte Haus/diesem alten Haus/dieses alten Hauses"),
        ("-", "house", True, "alte Häuser/alte Häuser/alten Häusern/alter Häuser"),
        ("the", "student", False, "der alte Student/den alten Studenten/dem alten Studenten/des alten Studenten"),
        ("a", "neighbour", False, "ein alter Nachbar/einen alten Nachbarn/einem alten Nachbarn/eines alten Nachbarn"),
        ("the", "car", True, "die alten Autos/die alten Autos/den alten Autos/der alten Autos"),
        ("Anna's", "car", False, "Annas altes Auto/Annas altes Auto/Annas altem Auto/Annas alten Autos"),
    ],
)
def test_noun_phrases(det: str, name: str, plural: bool, forms: str) -> None:
    made = phrase(det, name, "old", plural)
    assert [made.german(case) for case in quickstart.CASES] == forms.split("/")


def test_phrases_without_an_article() -> None:
    assert [phrase("-", "milk", "cold").german(case) for case in ("nom", "acc", "dat")] == [
        "kalte Milch",
        "kalte Milch",
        "kalter Milch",
    ]
    assert phrase("-", "coffee", "hot").german("acc") == "heißen Kaffee"
    assert phrase("-", "water", "cold").german("dat") == "kaltem Wasser"


def test_english_forms() -> None:
    wanted = {"radio": "radios", "tomato": "tomatoes", "box": "boxes", "library": "libraries", "knife": "knives"}
    assert {name: noun(name).en_plural for name in wanted} == wanted
    wanted = {"go": "goes", "have": "has", "carry": "carries", "wash": "washes", "play": "plays"}
    assert {base: quickstart.third_person(base) for base in wanted} == wanted
    assert phrase("a", "umbrella").en == "an umbrella" and phrase("a", "university").en == "a university"


def test_adjectives_that_change_their_stem() -> None:
    assert phrase("the", "cellar", "dark").german("nom") == "der dunkle Keller"
    assert phrase("a", "coat", "expensive").german("acc") == "einen teuren Mantel"
    assert phrase("the", "tower", "high").german("dat") == "dem hohen Turm"
    better = quickstart.noun_phrase(noun("car"), "a", adjective("new"), degree=1)
    assert (better.en, better.german("acc")) == ("a newer car", "ein neueres Auto")
    best = quickstart.noun_phrase(noun("coat"), "the", adjective("expensive"), degree=2)
    assert (best.en, best.german("nom")) == ("the most expensive coat", "der teuerste Mantel")


@pytest.mark.parametrize(
    ("infinitive", "forms"),
    [
        ("warten", "warte wartest wartet warten"),
        ("lesen", "lese liest liest lesen"),
        ("zeichnen", "zeichne zeichnest zeichnet zeichnen"),
        ("tanzen", "tanze tanzt tanzt tanzen"),
        ("träumen", "träume träumst träumt träumen"),
        ("füttern", "füttere fütterst füttert füttern"),
        ("einladen", "lade lädst lädt laden"),
        ("wissen", "weiß weißt weiß wissen"),
        ("sein", "bin bist ist sind"),
    ],
)
def test_present_forms(infinitive: str, forms: str) -> None:
    assert [quickstart.present(verb(infinitive), key) for key in ("I", "you", "she", "they")] == forms.split()


def test_imperatives_and_infinitives() -> None:
    wanted = {"geben": "gib", "lesen": "lies", "mitnehmen": "nimm", "waschen": "wasch", "warten": "warte"}
    assert {name: quickstart.imperative(verb(name)) for name in wanted} == wanted
    wanted = {"aufmachen": "aufzumachen", "kaufen": "zu kaufen", "spazieren gehen": "spazieren zu gehen"}
    assert {name: verb(name).zu_infinitive for name in wanted} == wanted


# --- Word order -------------------------------------------------------------------------------------------------------


def test_separable_verbs_in_all_orders() -> None:
    now = clause("she", "aufmachen", "pres", phrase("the", "window"))
    assert quickstart.english(now) == "she opens the window"
    assert quickstart.german_main(now) == "sie macht das Fenster auf"
    assert quickstart.german_main(now, "heute") == "heute macht sie das Fenster auf"
    assert quickstart.german_subordinate(now) == "sie das Fenster aufmacht"
    assert quickstart.german_infinitive(now) == "das Fenster aufzumachen"
    past = clause("she", "aufmachen", "past", phrase("the", "window"), negation="nicht")
    assert quickstart.english(past) == "she did not open the window"
    assert quickstart.german_main(past) == "sie hat das Fenster nicht aufgemacht"
    will = clause("she", "aufmachen", "want", phrase("the", "window"))
    assert quickstart.english_question(will) == "does she want to open the window"
    assert quickstart.german_main(will, subject_first=False) == "will sie das Fenster aufmachen"
    assert quickstart.german_subordinate(will) == "sie das Fenster aufmachen will"


def test_negated_questions() -> None:
    asked = clause("they", "suchen", "perf", phrase("the", "cat"), negation="nicht")
    assert quickstart.english_question(asked) == "have they not looked for the cat"
    assert quickstart.german_main(asked, "warum") == "warum haben sie die Katze nicht gesucht"
    none = clause("you", "kaufen", "past", phrase("any", "apple", plural=True), negation="kein")
    assert quickstart.english_question(none) == "did you not buy any apples"
    assert quickstart.german_main(none, "warum") == "warum hast du keine Äpfel gekauft"


def test_two_objects() -> None:
    child, book = phrase("the", "child"), phrase("a", "book")
    noun_pair = clause("I", "geben", "past", child, book)
    assert quickstart.english(noun_pair) == "I gave the child a book"
    assert quickstart.german_main(noun_pair) == "ich habe dem Kind ein Buch gegeben"
    it = quickstart.pronoun("it", "m")
    handed = clause("I", "geben", "pres", child, it)
    assert quickstart.english(handed) == "I give it to the child"
    assert quickstart.german_main(handed) == "ich gebe ihn dem Kind"
    both = clause("I", "geben", "pres", quickstart.pronoun("he"), it)
    assert quickstart.english(both) == "I give it to him"
    assert quickstart.german_main(both) == "ich gebe ihn ihm"


def test_reflexive_verbs() -> None:
    party = clause(phrase("the", "boy"), "freuen", "prog", phrase("the", "party"))
    assert quickstart.english(party) == "the boy is looking forward to the party"
    assert quickstart.german_main(party, "heute") == "heute freut sich der Junge auf die Party"
    teeth = clause("I", "die Zähne putzen", "perf")
    assert quickstart.english(teeth) == "I have brushed my teeth"
    assert quickstart.german_main(teeth) == "ich habe mir die Zähne geputzt"


def test_prepositions_contract() -> None:
    park = phrase("the", "park")
    assert quickstart.prepositional("in", park, "dat") == "im Park"
    assert quickstart.prepositional("in", phrase("the", "house"), "acc") == "ins Haus"
    assert quickstart.prepositional("zu", phrase("the", "school"), "dat") == "zur Schule"
    assert quickstart.prepositional("an", phrase("the", "river", "deep"), "dat") == "am tiefen Fluss"
    assert quickstart.prepositional("an", phrase("the", "child"), "acc", local=False) == "an das Kind"


def test_pronouns_agree_with_the_german_gender() -> None:
    wanted = {"lamp": "sie", "table": "ihn", "bed": "es"}
    found = {name: quickstart.pronoun_for(phrase("the", name)).german("acc") for name in wanted}
    assert found == wanted
