"""Generate the built-in English-German quick-start corpus from a small hand-written grammar.

Usage: ``python data/make_quickstart.py [--output data/quickstart]``

The grammar builds each sentence once, as a language-neutral ``Clause``, and spells it out in both languages. Nothing
in the German is chosen that the English does not mark, so a translation is a function of the English sentence. The
output depends on the seed alone: only ``Random.random`` is used, whose values are the same in every Python version.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

if str(Path(__file__).resolve().parent) not in sys.path:  # also when this file is imported by its path
    sys.path.insert(0, str(Path(__file__).resolve().parent))

import quickstart_lexicon as lexicon

SEED = 20240503
SPLIT_SIZES = {"train": 17000, "valid": 500, "test": 500}
MIN_TRAIN_COUNT = 5  # a word of a held-out sentence occurs at least this often in train (composed numbers apart)
MAX_WORDS = 25

T = TypeVar("T")


class Pair(NamedTuple):
    """One expression in both languages."""

    en: str
    de: str


def pairs(text: str) -> list[Pair]:
    """Read ``"today|heute;now|jetzt"``."""
    return [Pair(*item.split("|")) for item in text.split(";")]


def words(*parts: str) -> str:
    """Join the non-empty parts with single spaces."""
    return " ".join(part for part in parts if part)


def rows(table: str) -> list[list[str]]:
    """Split a lexicon table into its cells."""
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


# --- Nouns, articles, adjectives --------------------------------------------------------------------------------------

CASES = ("nom", "acc", "dat", "gen")
# One row for each gender (p: plural), one column for each case.
DEFINITE = {"m": "der den dem des", "f": "die die der der", "n": "das das dem des", "p": "die die den der"}
EIN_ENDINGS = {"m": "- en em es", "f": "e e er er", "n": "- - em es", "p": "e e en er"}
DIES_ENDINGS = {"m": "er en em es", "f": "e e er er", "n": "es es em es", "p": "e e en er"}
WEAK = {"m": "e en en en", "f": "e e en en", "n": "e e en en", "p": "en en en en"}
MIXED = {"m": "er en en en", "f": "e e en en", "n": "es es en en", "p": "en en en en"}
STRONG = {"m": "er en em en", "f": "e e er er", "n": "es es em en", "p": "e e en er"}

# English determiner -> German stem and article endings, adjective endings. "any" is the English of a negated "kein".
EIN_WORDS = {"a": "ein", "no": "kein", "any": "kein", "my": "mein", "your": "dein", "his": "sein"}
EIN_WORDS |= {"her": "ihr", "our": "unser", "their": "ihr"}
DIES_WORDS = {"this": "dies", "which": "welch", "every": "jed"}
INDEFINITE = ("a", "no", "any", "every", "-")


@dataclass(frozen=True)
class Noun:
    """A noun with what its forms need; ``tags`` are the semantic classes verbs and adjectives ask for."""

    en: str
    en_plural: str
    de: str
    gender: str
    genitive: str
    weak: bool
    de_plural: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Adjective:
    """An adjective: for both languages positive, comparative, superlative (German: the uninflected stems)."""

    en: tuple[str, str, str]
    de: tuple[str, str, str]
    tags: tuple[str, ...]


def cell(table: dict[str, str], gender: str, case: str) -> str:
    """Look up an ending; ``-`` stands for no ending."""
    ending = table[gender].split()[CASES.index(case)]
    return "" if ending == "-" else ending


def article(det: str, gender: str, case: str) -> str:
    """The German determiner for an English one (``-`` and names in the genitive: no inflected article)."""
    if det == "the":
        return cell(DEFINITE, gender, case)
    if det in EIN_WORDS:
        return EIN_WORDS[det] + cell(EIN_ENDINGS, gender, case)
    if det in DIES_WORDS:
        return DIES_WORDS[det] + cell(DIES_ENDINGS, gender, case)
    return det[:-2] + "s" if det.endswith("'s") else ""


def inflect_adjective(stem: str, det: str, gender: str, case: str) -> str:
    """Add the ending that the determiner leaves to the adjective (``der alte``, ``ein alter``, ``alter``)."""
    table = WEAK if det == "the" or det in DIES_WORDS else MIXED if det in EIN_WORDS else STRONG
    return lexicon.ADJECTIVE_STEMS.get(stem, stem) + cell(table, gender, case)


def inflect_noun(noun: Noun, case: str, plural: bool) -> str:
    """The German noun in a case: genitive -s, weak -n, dative plural -n."""
    if plural:
        return noun.de_plural + ("n" if case == "dat" and noun.de_plural[-1] not in "ns" else "")
    if noun.weak:
        return noun.de + ("" if case == "nom" else noun.genitive)
    return noun.de + (noun.genitive if case == "gen" else "")


def english_plural(word: str) -> str:
    """The regular plural, which is also the rule for the third person singular."""
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def english_article(following: str) -> str:
    """``a`` or ``an``, by the sound of the next word."""
    return "an" if following[0] in "aeiou" and not following.startswith(("uni", "one", "eu")) else "a"


# --- Phrases ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Phrase:
    """A noun phrase or pronoun spelled out in English and in the four German cases.

    ``key`` is the English pronoun that agrees with it, ``gender`` the German one.
    """

    en: str
    en_object: str
    de: tuple[str, str, str, str]
    key: str
    gender: str
    pronoun: bool = False
    definite: bool = True
    noun: Noun | None = None

    def german(self, case: str) -> str:
        return self.de[CASES.index(case)]


# Key -> English object, possessive, reflexive | German nominative, accusative, dative, reflexive accusative and dative.
PRONOUN_TABLE = {
    "I": "me my myself ich mich mir mich mir",
    "you": "you your yourself du dich dir dich dir",
    "he": "him his himself er ihn ihm sich sich",
    "she": "her her herself sie sie ihr sich sich",
    "it": "it its itself es es ihm sich sich",
    "we": "us our ourselves wir uns uns uns uns",
    "they": "them their themselves sie sie ihnen sich sich",
}
NUMBER_ROW = {"I": 0, "you": 1, "he": 2, "she": 2, "it": 2, "we": 3, "they": 3}
KEY_OF_GENDER = {"m": "he", "f": "she", "n": "it", "p": "they"}


def pronoun(key: str, gender: str = "") -> Phrase:
    """A personal pronoun; ``gender`` makes an English "it" agree with the German noun it stands for."""
    own = {"he": "m", "she": "f", "it": "n"}.get(key, "p")
    german = PRONOUN_TABLE[KEY_OF_GENDER[gender] if gender else key].split()
    forms = (german[3], german[4], german[5], "")
    return Phrase(key, PRONOUN_TABLE[key].split()[0], forms, key, gender or own, pronoun=True)


def name_phrase(name: str) -> Phrase:
    female = name in lexicon.WOMEN.split()
    return Phrase(name, name, (name, name, name, name + "s"), "she" if female else "he", "f" if female else "m")


def pronoun_for(phrase: Phrase) -> Phrase:
    """The pronoun that takes up ``phrase`` again in the next clause."""
    if phrase.key in ("I", "you", "we", "they"):
        return pronoun(phrase.key)
    return pronoun(phrase.key, phrase.gender)


def noun_key(noun: Noun, plural: bool) -> str:
    """The English pronoun for a noun: he or she for people, it for everything else."""
    if plural:
        return "they"
    if "person" not in noun.tags or noun.en == "child":
        return "it"
    return "he" if noun.gender == "m" else "she"


def noun_phrase(
    noun: Noun,
    det: str,
    adjective: Adjective | None = None,
    plural: bool = False,
    degree: int = 0,
    count: Pair | None = None,
    after: Pair | None = None,
) -> Phrase:
    """Spell out determiner, number, adjective, noun and what follows it (genitive or relative clause)."""
    gender = "p" if plural else noun.gender
    later = after or Pair("", "")
    english = words(count.en if count else "", adjective.en[degree] if adjective else "")
    english = words(english, noun.en_plural if plural else noun.en)
    if det == "a" or (det == "any" and not plural and "mass" not in noun.tags):
        english = words(english_article(english), english)
    elif det != "-":
        english = words("these" if det == "this" and plural else det, english)
    forms = []
    for case in CASES:
        stem = inflect_adjective(adjective.de[degree], det, gender, case) if adjective else ""
        number = count.de if count else ""
        forms.append(words(article(det, gender, case), number, stem, inflect_noun(noun, case, plural)) + later.de)
    definite = det not in INDEFINITE
    key = noun_key(noun, plural)
    german = (forms[0], forms[1], forms[2], forms[3])
    return Phrase(english + later.en, english + later.en, german, key, gender, definite=definite, noun=noun)


CONTRACTIONS = {"in dem": "im", "an dem": "am", "zu dem": "zum", "zu der": "zur", "von dem": "vom", "bei dem": "beim"}
LOCAL_CONTRACTIONS = {"in das": "ins", "an das": "ans"}  # idiomatic for places only ("denkt an das Kind")


def prepositional(preposition: str, phrase: Phrase, case: str, local: bool = True) -> str:
    """Preposition and noun phrase, with the usual contraction with a definite article."""
    text = words(preposition, phrase.german(case))
    start, _, rest = text.partition(" ")
    first, _, rest = rest.partition(" ")
    table = CONTRACTIONS | (LOCAL_CONTRACTIONS if local else {})
    key = f"{start} {first}"
    return f"{table[key]} {rest}" if key in table and rest else text


# --- Verbs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slot:
    """One object of a verb: prepositions of both languages, German case, and which nouns fit."""

    en: str
    de: str
    case: str
    tags: tuple[str, ...]

    def german(self, phrase: Phrase) -> str:
        return prepositional(self.de, phrase, self.case, local=False) if self.de else phrase.german(self.case)


@dataclass(frozen=True)
class Verb:
    """A verb pair; ``prefix`` keeps a trailing space where it is written apart (``Klavier spielen``)."""

    base: str
    past: str
    participle: str
    ing: str
    particle: str
    prefix: str
    stem: str
    irregular: tuple[str, ...]
    de_participle: str
    auxiliary: str
    slots: tuple[Slot, ...]
    subjects: tuple[str, ...]
    flags: tuple[str, ...]

    @property
    def infinitive(self) -> str:
        return self.prefix + self.stem

    @property
    def zu_infinitive(self) -> str:
        """``zu kaufen``, ``einzukaufen``, ``spazieren zu gehen``."""
        if self.prefix and not self.prefix.endswith(" "):
            return f"{self.prefix}zu{self.stem}"
        return f"{self.prefix}zu {self.stem}"


def parse_slot(text: str) -> Slot:
    """Read ``for=auf+acc:person``."""
    head, _, tags = text.partition(":")
    english, _, german = head.rpartition("=")
    preposition, _, case = german.rpartition("+")
    return Slot(english, preposition, case, tuple(tags.split()))


def parse_verb(row: Sequence[str]) -> Verb:
    forms = row[0].split()
    if forms[0] == "be":
        forms = ["be", "was", "been", "being"]
    elif len(forms) == 1:
        forms = [forms[0], forms[0] + "ed", forms[0] + "ed", forms[0] + "ing"]
    base, past, participle, ing = forms
    prefix, _, stem = row[2].rpartition("+")
    de_participle, auxiliary = row[4].rsplit(" ", 1)
    slots = tuple(parse_slot(slot) for slot in row[5].split(";") if slot)
    parts = (base, past, participle, ing, row[1], prefix.replace("_", " "), stem, tuple(row[3].split()))
    return Verb(*parts, de_participle, auxiliary, slots, tuple(row[6].split()), tuple(row[7].split()))


NEEDS_E = "[td]$|(?:[^aeiouäöülrhmn]|ch)[mn]$"  # stems such as "wart", "regn", "zeichn"


def present(verb: Verb, key: str) -> str:
    """The German present without the separable prefix; ``key`` is the subject's English pronoun."""
    row = NUMBER_ROW[key]
    if row == 3:
        return "sind" if verb.stem == "sein" else verb.stem
    irregular = verb.irregular
    stem = re.sub("e?n$", "", verb.stem)
    if row == 0:
        return irregular[0] if len(irregular) == 3 else stem + "e"
    if irregular:
        return irregular[row - 3]
    link = "e" if re.search(NEEDS_E, stem) else ""
    if row == 1:
        return stem + ("t" if re.search("[sßxz]$", stem) else link + "st")
    return stem + link + "t"


def imperative(verb: Verb) -> str:
    """The du-imperative: the stem, with e -> i where the verb has it, and -e where it is needed for the sound."""
    stem = re.sub("e?n$", "", verb.stem)
    du = present(verb, "you")
    root = du[:-1] if stem[-1] in "sß" else du[:-2]
    if len(verb.irregular) == 2 and "ä" not in root:  # gib, nimm, lies; but "fahr", "lauf" without the umlaut
        return root
    return stem + ("e" if re.search(NEEDS_E + "|er$", stem) else "")


def aux(name: str, key: str) -> str:
    return lexicon.GERMAN_FORMS[name].split()[NUMBER_ROW[key]]


def third_person(word: str) -> str:
    return {"have": "has", "go": "goes"}.get(word) or english_plural(word)


# --- Clauses ----------------------------------------------------------------------------------------------------------

NO = Pair("", "")


@dataclass(frozen=True)
class Clause:
    """A clause before its word order is chosen.

    ``late`` is a mid-position adverb (often, already); ``tail`` ends the German middle field (direction, predicate).
    ``negation`` is empty, "nicht", or "kein" when an object already carries the German negation.
    """

    subject: Phrase
    verb: Verb
    tense: str
    objects: tuple[tuple[Slot, Phrase], ...] = ()
    negation: str = ""
    time: Pair = NO
    late: Pair = NO
    manner: Pair = NO
    place: Pair = NO
    tail: Pair = NO


def german_verb(clause: Clause) -> tuple[str, str]:
    """The finite verb and what closes the clause (infinitive or participle); empty for the simple tenses."""
    verb, key, tense = clause.verb, clause.subject.key, clause.tense
    if tense in ("pres", "prog"):
        return present(verb, key), ""
    if verb.stem in ("sein", "haben") and tense in ("past", "irrealis"):
        forms = {"sein past": "war", "haben past": "hatte", "sein irrealis": "wäre", "haben irrealis": "hätte"}
        return aux(forms[f"{verb.stem} {tense}"], key), ""
    if tense in ("past", "perf"):
        return aux(verb.auxiliary, key), verb.de_participle
    if tense.startswith("passive"):
        return aux("werden" if tense == "passive" else "wurde", key), verb.de_participle
    row = {"fut": "werden", "cond": "würde"}.get(tense) or lexicon.MODALS[tense][2]
    return aux(row, key), verb.infinitive


def reflexive(clause: Clause) -> str:
    forms = PRONOUN_TABLE[clause.subject.key].split()
    if "reflD" in clause.verb.flags:
        return forms[7]
    return forms[6] if "refl" in clause.verb.flags else ""


def german_pronouns(clause: Clause) -> str:
    """Unstressed pronouns, which open the middle field: accusative before dative."""
    plain = [(slot.case, slot.german(phrase)) for slot, phrase in clause.objects if phrase.pronoun and not slot.de]
    return words(*[form for _, form in sorted(plain)], reflexive(clause))


def german_middle(clause: Clause) -> str:
    """The middle field behind subject and pronouns.

    Normally receiver, time, place, objects; with ``nicht``, "schon", "nie" or "selten", definite objects come before
    those.
    """
    nouns = [(slot, phrase) for slot, phrase in clause.objects if not phrase.pronoun and not slot.de]
    nouns.sort(key=lambda item: item[0].case != "dat")
    known = " ".join(slot.german(phrase) for slot, phrase in nouns if phrase.definite)
    new = " ".join(slot.german(phrase) for slot, phrase in nouns if not phrase.definite)
    with_preposition = " ".join(slot.german(phrase) for slot, phrase in clause.objects if slot.de)
    closing = words(clause.manner.de, with_preposition, clause.tail.de)
    if clause.negation == "nicht" or clause.late.de in ("schon", "nie", "selten"):
        negation = "nicht" if clause.negation == "nicht" else ""
        start = words(known, clause.time.de, clause.late.de, negation, clause.place.de)
        return words(start, new, closing)
    # Names and the receiver of a gift are topical enough to come before the time as well.
    early = [item for item in nouns if item[1].noun is None or (len(nouns) == 2 and item[0].case == "dat")]
    before = " ".join(slot.german(phrase) for slot, phrase in early)
    after = " ".join(item[0].german(item[1]) for item in nouns if item not in early)
    return words(before, clause.time.de, clause.late.de, clause.place.de, after, closing)


def german_main(clause: Clause, front: str = "", subject_first: bool = True) -> str:
    """Verb-second order; with ``front`` that comes first, without it (and not subject first) the verb does."""
    finite, closing = german_verb(clause)
    right = closing or clause.verb.prefix.strip()
    subject, pronouns = clause.subject.german("nom"), german_pronouns(clause)
    middle = german_middle(clause)
    if front or not subject_first:
        # "Heute freut sich das Kind", but "Heute freut es sich": pronouns precede a full noun subject.
        inner = words(subject, pronouns) if clause.subject.pronoun else words(pronouns, subject)
        return words(front, finite, inner, middle, right)
    return words(subject, finite, pronouns, middle, right)


def german_subordinate(clause: Clause) -> str:
    """Verb-final order."""
    finite, closing = german_verb(clause)
    end = words(closing, finite) if closing else clause.verb.prefix + finite
    return words(clause.subject.german("nom"), german_pronouns(clause), german_middle(clause), end)


def german_infinitive(clause: Clause) -> str:
    """Infinitive group with ``zu``; the subject is only there for the reflexive pronoun."""
    return words(german_pronouns(clause), german_middle(clause), clause.verb.zu_infinitive)


def english_be(key: str, past: bool) -> str:
    row = 0 if key == "I" else 1 if NUMBER_ROW[key] == 2 else 2
    return (("was", "was", "were") if past else ("am", "is", "are"))[row]


def english_verb(clause: Clause) -> tuple[str, str, str]:
    """Finite verb, rest, and ("do" plus rest) where negation and questions need it (else empty)."""
    verb, key, tense = clause.verb, clause.subject.key, clause.tense
    third = NUMBER_ROW[key] == 2
    do = "does" if third else "do"
    if tense in ("pres", "past") and verb.base == "be":
        return english_be(key, tense == "past"), "", ""
    if tense == "pres":
        return third_person(verb.base) if third else verb.base, "", f"{do} {verb.base}"
    if tense == "past":
        return verb.past, "", f"did {verb.base}"
    if tense == "prog":
        return english_be(key, False), verb.ing, ""
    if tense == "perf":
        return "has" if third else "have", verb.participle, ""
    if tense == "irrealis":
        return "were" if verb.base == "be" else verb.past, "", ""
    if tense.startswith("passive"):
        middle = "being" if tense == "passive" else ""
        return english_be(key, tense != "passive"), words(middle, verb.participle), ""
    if tense in ("fut", "cond"):
        return "will" if tense == "fut" else "would", verb.base, ""
    finite, rest, _ = lexicon.MODALS[tense]
    rest = words(rest, verb.base)
    if tense in ("want", "have"):
        return third_person(finite) if third else finite, rest, f"{do} {finite} {rest}"
    if tense in ("wanted", "had"):
        return finite, rest, f"did {'want' if tense == 'wanted' else 'have'} {rest}"
    return finite, rest, ""


def english_complements(clause: Clause) -> str:
    """What follows the English verb: objects, particle, prepositional objects, manner, place, time."""
    objects = list(clause.objects)
    if len(objects) == 2 and (objects[0][0].en or objects[1][1].pronoun):  # "explain it TO him", "give it TO him"
        (dative, person), thing = objects
        objects = [thing, (replace(dative, en="to"), person)]
    direct = words(*[phrase.en_object for slot, phrase in objects if not slot.en])
    _, possessive, self_form = PRONOUN_TABLE[clause.subject.key].split()[:3]
    particle = re.sub("INTRANSITIVE|THAT|WHETHER|TO", "", clause.verb.particle)
    particle = particle.replace("SELF", self_form).replace("HIS", possessive)
    later = words(*[words(slot.en, phrase.en_object) for slot, phrase in objects if slot.en])
    return words(direct, particle, later, clause.manner.en, clause.tail.en, clause.place.en, clause.time.en)


def english(clause: Clause) -> str:
    """A statement (also inside a subordinate clause)."""
    finite, rest, support = english_verb(clause)
    if clause.negation:
        do, _, base = support.partition(" ")
        verb = words(do, "not", base) if support else words(finite, "not", rest)
        verb = verb.replace("can not ", "cannot ")
    elif support:  # a full verb comes after the adverb, an auxiliary before it
        verb = words(clause.late.en, finite, rest)
    else:
        verb = words(finite, clause.late.en, rest)
    return words(clause.subject.en, verb, english_complements(clause))


def english_question(clause: Clause) -> str:
    """Inverted order, with do-support where the verb needs it."""
    finite, rest, support = english_verb(clause)
    if support:
        finite, _, rest = support.partition(" ")
    negation = "not" if clause.negation else ""
    return words(finite, clause.subject.en, negation, clause.late.en, rest, english_complements(clause))


def english_infinitive(clause: Clause) -> str:
    return words(clause.verb.base, english_complements(clause))


def without_object(clause: Clause) -> tuple[str, Clause, Clause]:
    """Take the last object out, for a relative clause or question about it.

    Returns the German form of that object, the clause to spell out in English (its preposition is left stranded) and
    the clause to spell out in German.
    """
    slot, phrase = clause.objects[-1]
    empty = replace(phrase, en_object="")
    rest = clause.objects[:-1]
    return slot.german(phrase), replace(clause, objects=(*rest, (slot, empty))), replace(clause, objects=rest)


# --- Numbers, clock, dates --------------------------------------------------------------------------------------------


def english_number(number: int) -> str:
    """British number words up to 999,999."""
    if number >= 1000:
        head, rest = divmod(number, 1000)
        joint = "and " if 0 < rest < 100 else ""
        return words(english_number(head), "thousand", joint + english_number(rest) if rest else "")
    if number >= 100:
        head, rest = divmod(number, 100)
        return words(lexicon.EN_ONES[head], "hundred", "and " + english_number(rest) if rest else "")
    if number < 20:
        return lexicon.EN_ONES[number]
    tens, ones = divmod(number, 10)
    return lexicon.EN_TENS[tens] + (f"-{lexicon.EN_ONES[ones]}" if ones else "")


def german_number(number: int, final: bool = True) -> str:
    """German number words up to 999,999; a final one is ``eins``, inside a word it is ``ein``."""
    if number >= 1000:
        head, rest = divmod(number, 1000)
        return german_number(head, False) + "tausend" + (german_number(rest, final) if rest else "")
    if number >= 100:
        head, rest = divmod(number, 100)
        return lexicon.DE_ONES[head] + "hundert" + (german_number(rest, final) if rest else "")
    if number < 20:
        return "eins" if number == 1 and final else lexicon.DE_ONES[number]
    tens, ones = divmod(number, 10)
    return (lexicon.DE_ONES[ones] + "und" if ones else "") + lexicon.DE_TENS[tens]


def number_words(number: int) -> Pair:
    return Pair(english_number(number), german_number(number))


def year_words(year: int) -> Pair:
    """``nineteen ninety-eight`` / ``neunzehnhundertachtundneunzig``; from 2000 on ordinary numbers."""
    if year >= 2000:
        return number_words(year)
    head, rest = divmod(year, 100)
    return Pair(
        f"{english_number(head)} {english_number(rest)}", f"{lexicon.DE_ONES[head]}hundert{german_number(rest)}"
    )


def clock_time(hour: int, minute: int) -> Pair:
    """A clock time on the twelve-hour dial in steps of five minutes, as it is said in both languages."""
    following = hour % 12 + 1
    if minute == 0:
        return Pair(f"{english_number(hour)} o'clock", f"{german_number(hour, False)} Uhr")
    steps = {5: ("five", "fünf"), 10: ("ten", "zehn"), 15: ("a quarter", "Viertel"), 20: ("twenty", "zwanzig")}
    if minute == 30:
        return Pair(f"half past {english_number(hour)}", f"halb {german_number(following)}")
    if minute in (25, 35):  # German counts these from the half hour
        side, english_hour = ("past", hour) if minute == 25 else ("to", following)
        german_side = "vor" if minute == 25 else "nach"
        half = f"fünf {german_side} halb {german_number(following)}"
        return Pair(f"twenty-five {side} {english_number(english_hour)}", half)
    past = minute < 30
    step = steps[minute if past else 60 - minute]
    shown = hour if past else following
    sides = ("past", "nach") if past else ("to", "vor")
    return Pair(f"{step[0]} {sides[0]} {english_number(shown)}", f"{step[1]} {sides[1]} {german_number(shown)}")


def ordinal(number: int) -> Pair:
    """Ordinal words up to 31; the German stem without its ending (``dritt``)."""
    german = lexicon.DE_ORDINALS.get(number) or german_number(number) + ("t" if number < 20 else "st")
    tens, ones = divmod(number, 10)
    if number > 20 and ones:
        return Pair(f"{lexicon.EN_TENS[tens]}-{ordinal(ones).en}", german)
    if number in (20, 30):
        return Pair(lexicon.EN_TENS[tens][:-1] + "ieth", german)
    return Pair(lexicon.EN_ORDINALS.get(number) or lexicon.EN_ONES[number] + "th", german)


def date_words(day: int, month: int, ending: str = "en") -> Pair:
    """``the third of May`` / ``dritten Mai`` (behind ``am`` or ``dem``; nominative with the ending ``e``)."""
    name = pairs(lexicon.MONTHS)[month - 1]
    return Pair(f"the {ordinal(day).en} of {name.en}", f"{ordinal(day).de}{ending} {name.de}")


# --- Choosing words ---------------------------------------------------------------------------------------------------

POSSESSIVES = ("my", "your", "his", "her", "our", "their")
OTHER_MODALS = ("can", "must", "should", "may", "want", "have", "wish")
PAST_MODALS = ("wanted", "had")
MODAL_TIMES = pairs("today|heute;tomorrow|morgen;now|jetzt;this evening|heute Abend")
MANNER_VERBS = {"tragen": "carefully|vorsichtig", "auspacken": "carefully|vorsichtig", "singen": "loudly|laut"}
MANNER_VERBS |= {"lachen": "loudly|laut", "essen": "slowly|langsam", "trinken": "slowly|langsam"}
MANNER_VERBS |= {"aufstehen": "slowly|langsam", "schwimmen": "fast|schnell", "spielen": "quietly|leise"}
STATES = "tired|müde;hungry|hungrig;thirsty|durstig;sick|krank;sad|traurig;happy|glücklich;nervous|nervös;angry|wütend"
PREDICATES = STATES + ";very tired|sehr müde;very hungry|sehr hungrig;too lazy|zu faul;at home|zu Hause"
COLOURS = "red blue green yellow black white brown grey"
ABSOLUTE = COLOURS + " broken empty full modern"  # adjectives without degrees
MOODS = "tired happy sad sick angry nervous"  # states of a moment, not to be compared
TOO = "old young big small tall expensive heavy long short slow loud dark cold hot warm lazy shy curious dangerous "
TOO += "difficult wide high nervous light dirty sharp"
MERITS = "new beautiful cheap light modern warm fast comfortable elegant practical good interesting exciting clean big"
FAULTS = "old ugly expensive heavy dirty broken slow boring"
PRICES = (("dish", 2, 20), ("garment", 10, 400), ("furniture", 20, 900), ("device", 20, 900), ("container", 2, 150))
HIGH_PRICES = (("house", 40000, 999999), ("flat", 40000, 999999), ("car", 1000, 90000), ("boat", 1000, 90000))
COMPARED = (
    "person",
    "animal",
    "garment",
    "furniture",
    "vehicle",
    "thing",
    "place",
    "room",
    "building",
    "fruit",
    "dish",
)
# What has a length, a depth, pages or rooms: noun, lowest and highest number, words after the number.
SIZES = (
    ("river", 20, 999, "kilometres long|Kilometer lang"),
    ("mountain", 400, 4900, "metres high|Meter hoch"),
    ("tower", 20, 300, "metres high|Meter hoch"),
    ("bridge", 20, 999, "metres long|Meter lang"),
    ("street", 100, 900, "metres long|Meter lang"),
    ("lake", 10, 250, "metres deep|Meter tief"),
)
CONTENTS = (
    ("book", 80, 900, "pages|Seiten"),
    ("novel", 80, 900, "pages|Seiten"),
    ("town", 9000, 999999, "inhabitants|Einwohner"),
    ("village", 90, 3000, "inhabitants|Einwohner"),
    ("hotel", 12, 400, "rooms|Zimmer"),
    ("castle", 12, 400, "rooms|Zimmer"),
)
DAILY = "aufstehen aufwachen einschlafen zurückkommen einkaufen fernsehen frühstücken abholen anrufen"
WEATHERS = "cold|kalt;warm|warm;hot|heiß;dark|dunkel"


@dataclass(frozen=True)
class Place:
    """Where and whereto with one place noun; ``directions`` holds t (to the ...) and i (into the ...)."""

    noun: Noun
    en: str
    de: str
    directions: tuple[str, ...]


class Chooser:
    """The lexicon and the random choices made from it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed).random
        self.nouns = [self.parse_noun(row) for row in rows(lexicon.NOUNS)]
        self.adjectives = [self.parse_adjective(row) for row in rows(lexicon.ADJECTIVES)]
        self.verbs = [parse_verb(row) for row in rows(lexicon.VERBS)]
        self.special = {words(verb.base, verb.particle): verb for verb in map(parse_verb, rows(lexicon.SPECIAL_VERBS))}
        self.by_name = {noun.en: noun for noun in self.nouns}
        self.places = [
            Place(self.by_name[row[0]], row[1].split()[0], row[1].split()[1], tuple(row[2].split()))
            for row in rows(lexicon.PLACES)
        ]

    @staticmethod
    def parse_noun(row: Sequence[str]) -> Noun:
        gender, mark, ending = row[3].partition("*") if "*" in row[3] else row[3].partition("/")
        plural = "" if row[1] == "-" else row[1] or english_plural(row[0])
        tags = (*row[5].split(), row[0].replace(" ", "_"))
        return Noun(row[0], plural, row[2], gender, ending, mark == "*", row[4], tags)

    @staticmethod
    def parse_adjective(row: Sequence[str]) -> Adjective:
        english = (row[0], row[1] or f"more {row[0]}", row[2] or f"most {row[0]}")
        german = (row[3], row[4] or row[3] + "er", row[5] or row[3] + "st")
        return Adjective(english, german, tuple(row[6].split()))

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.random() * (high - low + 1))

    def noun(self, *tags: str) -> Noun:
        return self.pick([noun for noun in self.nouns if any(tag in noun.tags for tag in tags)])

    def adjective(self, noun: Noun) -> Adjective | None:
        fitting = [adjective for adjective in self.adjectives if any(tag in noun.tags for tag in adjective.tags)]
        return self.pick(fitting) if fitting else None

    def determiner(self, noun: Noun, plural: bool, definite: bool, owner: str) -> str:
        """An article or possessive; ``owner`` is the subject whose own things are meant most of the time."""
        mine = PRONOUN_TABLE[owner].split()[1] if owner not in ("", "it") and self.chance(0.6) else ""
        # "his" and "her" next to a noun subject would leave open whose it is; the translation is the same.
        possessive = mine or self.pick(POSSESSIVES)
        draw = self.random()
        if "kin" in noun.tags:
            return possessive if draw < 0.88 else "the"
        if "mass" in noun.tags:
            return "the" if definite or draw < 0.4 else "-"
        if draw < 0.3 and not definite:
            return "-" if plural else "a"
        ownable = any(tag in noun.tags for tag in ("own", "garment", "lose", "goods", "pet", "vehicle", "lend"))
        if draw < 0.5 and ownable and "public" not in noun.tags:
            return possessive
        return "this" if self.chance(0.1) else "the"

    def phrase(
        self, noun: Noun, definite: bool = False, owner: str = "", adjective: float = 0.4, plural: float = 0.2
    ) -> Phrase:
        """A noun phrase around ``noun``; the floats are the chances of an adjective and of the plural."""
        more = 4.0 if "pair" in noun.tags else 2.0 if "fruit" in noun.tags or "cook" in noun.tags else 1.0
        many = bool(noun.en_plural) and self.chance(plural * more)
        chosen = self.adjective(noun) if self.chance(adjective) else None
        return noun_phrase(noun, self.determiner(noun, many, definite, owner), chosen, many)

    def person(self, *tags: str, pronouns: float = 0.4, adjective: float = 0.35) -> Phrase:
        """A subject for a verb of people (or of those the tags name)."""
        draw = self.random()
        tags = tags or ("person",)
        if "person" in tags and draw < pronouns:
            return pronoun(self.pick(("I", "you", "he", "she", "we", "they")))
        if "person" in tags and draw < pronouns + 0.12:
            return self.name()
        return self.phrase(self.noun(*tags), definite=self.chance(0.85), adjective=adjective, plural=0.25)

    def name(self) -> Phrase:
        return name_phrase(self.pick((lexicon.MEN + " " + lexicon.WOMEN).split()))

    def referable(self, *tags: str) -> Phrase:
        """A person that a later pronoun can take up ("child" and "Mädchen" leave open which pronoun)."""
        while True:
            phrase = self.person(*tags)
            if phrase.noun is None or phrase.noun.en not in ("child", "girl"):
                return phrase

    def object_for(self, slot: Slot, subject: Phrase, definite: bool, simple: bool) -> Phrase:
        """An object that fits the slot and is not the subject again."""
        people = "person" in slot.tags or "kin" in slot.tags
        if people and self.chance(0.22):
            own_side = {"I": "we", "we": "I"}.get(subject.key, subject.key)
            others = [key for key in ("I", "you", "he", "she", "we", "they") if key not in (subject.key, own_side)]
            return pronoun(self.pick(others))
        if people and self.chance(0.1):
            name = self.name()
            if name.en != subject.en:
                return name
        noun = self.noun(*slot.tags)
        while noun == subject.noun:
            noun = self.noun(*slot.tags)
        definite = definite or (slot.case == "dat" and not slot.de)
        chance = 0.12 if simple else 0.4
        return self.phrase(noun, definite, subject.key, adjective=chance, plural=0.1 if simple else 0.22)

    def tense(self, verb: Verb) -> str:
        if "event" in verb.flags:
            return "past" if self.chance(0.6) else "perf"
        if "stative" in verb.flags:
            return "past" if "nopast" not in verb.flags and self.chance(0.2) else "pres"
        draw = self.random()
        if draw < 0.14:
            return self.pick(OTHER_MODALS)
        if draw < 0.18:
            return self.pick(PAST_MODALS)
        past = "perf" if "nopast" in verb.flags else "past"
        return self.pick(("prog", "prog", "pres", "pres", past, past, "perf", "fut"))

    def time(self, tense: str, verb: Verb | None = None) -> Pair:
        if tense in OTHER_MODALS:
            return self.pick(MODAL_TIMES)
        tense = "past" if tense in PAST_MODALS else tense
        if verb and tense in ("past", "fut") and verb.infinitive in lexicon.LONG_VERBS.split():
            tense = "long " + tense if verb.infinitive == "bauen" or self.chance(0.6) else tense
        return self.pick(pairs(lexicon.TIMES[tense])) if tense in lexicon.TIMES else NO

    def where(self, place: Place, adjective: float = 0.15) -> Pair:
        noun = place.noun
        chosen = self.adjective(noun) if self.chance(adjective) else None
        phrase = noun_phrase(noun, "the", chosen)
        return Pair(f"{place.en} {phrase.en}", prepositional(place.de, phrase, "dat"))

    def whereto(self, adjective: float = 0.1) -> Pair:
        place = self.pick([place for place in self.places if place.directions])
        phrase = noun_phrase(place.noun, "the", self.adjective(place.noun) if self.chance(adjective) else None)
        if self.pick(place.directions) == "t":
            return Pair(f"to {phrase.en}", prepositional("zu", phrase, "dat"))
        return Pair(f"into {phrase.en}", prepositional(place.de, phrase, "acc"))

    def verb_place(self, verb: Verb) -> Pair:
        """A place where this is done, if the lexicon has one."""
        wanted = lexicon.VERB_PLACES.get(verb.infinitive, "").split()
        fitting = [place for place in self.places if place.noun.en.replace(" ", "_") in wanted]
        return self.where(self.pick(fitting)) if fitting else NO

    def verb(self, test: Callable[[Verb], bool]) -> Verb:
        return self.pick([verb for verb in self.verbs if test(verb)])

    def clause(
        self, verb: Verb, subject: Phrase | None = None, tense: str = "", simple: bool = False, negatable: bool = True
    ) -> Clause:
        """A clause with this verb: objects, negation and adverbials that go together."""
        subject = subject or self.person(*verb.subjects, adjective=0.1 if simple else 0.35)
        tense = tense or self.tense(verb)
        negated = negatable and "nonot" not in verb.flags and tense not in ("must", "may") and self.chance(0.14)
        objects = []
        for slot in verb.slots:  # one knows and likes particular people, not just "a" man
            known = (negated and slot.de != "") or ("stative" in verb.flags and "person" in slot.tags)
            objects.append((slot, self.object_for(slot, subject, known, simple)))
        negation = "nicht" if negated else ""
        if negated and objects and not objects[-1][1].definite:  # indefinite object: "any" and "kein"
            slot, old = objects[-1]
            assert old.noun is not None
            many = old.gender == "p"
            objects[-1] = (slot, noun_phrase(old.noun, "any", plural=many))
            negation = "kein"
        clause = Clause(subject, verb, tense, tuple(objects), negation)
        return clause if simple and self.chance(0.6) else self.with_adverbials(clause)

    def with_adverbials(self, clause: Clause) -> Clause:
        """Add time, frequency, manner or place; not all of them, the order of several would not be fixed."""
        verb, tense = clause.verb, clause.tense
        if "stative" in verb.flags and "event" not in verb.flags:
            return clause
        draw = self.random()
        if tense == "pres" and not clause.negation and draw < 0.35:
            return replace(clause, late=self.pick(pairs(lexicon.FREQUENCIES)))
        if tense == "perf" and not clause.negation and draw < 0.45:
            return replace(clause, late=self.pick(pairs("already|schon;just|gerade")))
        if clause.negation and tense == "pres":  # "does not sleep every evening" would be open to two readings
            return clause
        if draw < 0.7:
            clause = replace(clause, time=self.time(tense, verb))
        elif draw < 0.78 and not clause.negation and verb.infinitive in MANNER_VERBS:
            return replace(clause, manner=Pair(*MANNER_VERBS[verb.infinitive].split("|")))
        if self.chance(0.45) and not (clause.negation and clause.objects):
            clause = replace(clause, place=self.verb_place(verb))
        return clause

    def person_verb(self, *, objects: int | None = None) -> Verb:
        """A verb of human action that any person can do."""
        people = [verb for verb in self.verbs if "person" in verb.subjects and "young" not in verb.subjects]
        return self.pick([verb for verb in people if objects in (None, len(verb.slots))])

    def action(self) -> Verb:
        """A verb for something one does on purpose (wants, tries, ought to do)."""
        return self.verb(
            lambda verb: (
                "person" in verb.subjects
                and "young" not in verb.subjects
                and "stative" not in verb.flags
                and "event" not in verb.flags
                and verb.infinitive not in ("einschlafen", "aufwachen", "träumen", "lächeln")
            )
        )


# --- Sentence patterns ------------------------------------------------------------------------------------------------


def sentence(en: str, de: str, mark: str = ".") -> Pair:
    """Capital letter, final mark, and no comma next to another mark."""

    def finish(text: str) -> str:
        text = re.sub(r",+(?=[,.?!])", "", text + mark)
        return text[0].upper() + text[1:]

    return Pair(finish(en), finish(de))


class Grammar(Chooser):
    """The sentence patterns; every method ``say_...`` makes one sentence pair."""

    def statement(self, clause: Clause) -> Pair:
        """A main clause, often with the time or the place fronted ("Heute kauft ...")."""
        if clause.time.de and self.chance(0.45):
            bare = replace(clause, time=NO)
            return sentence(f"{clause.time.en}, {english(bare)}", german_main(bare, clause.time.de))
        if clause.place.de and not clause.negation and self.chance(0.3):
            bare = replace(clause, place=NO)
            return sentence(f"{clause.place.en}, {english(bare)}", german_main(bare, clause.place.de))
        return sentence(english(clause), german_main(clause))

    def say_transitive(self) -> Pair:
        return self.statement(self.clause(self.verb(lambda verb: len(verb.slots) == 1 and verb.subjects != ("goods",))))

    def say_intransitive(self) -> Pair:
        return self.statement(self.clause(self.verb(lambda verb: not verb.slots)))

    def say_ditransitive(self) -> Pair:
        """Dative before accusative, but a pronoun before a noun ("gibt es dem Kind", from "give it to")."""
        return self.statement(self.clause(self.verb(lambda verb: len(verb.slots) == 2)))

    def say_question(self) -> Pair:
        """Yes/no questions."""
        clause = self.clause(self.person_verb(), self.asked_about(), negatable=False)
        clause = replace(clause, manner=NO)
        return sentence(english_question(clause), german_main(clause, subject_first=False), "?")

    def asked_about(self) -> Phrase:
        """The subject of a question; nobody asks what they are doing themselves."""
        subject = self.person()
        while subject.key == "I":
            subject = self.person()
        return subject

    def say_wh_question(self) -> Pair:
        draw = self.random()
        if draw < 0.25:  # about the subject
            who = Phrase("who", "who", ("wer", "wen", "wem", "wessen"), "he", "m")
            clause = self.clause(self.person_verb(), subject=who, negatable=False)
            if any(phrase.key in ("he", "she") and phrase.pronoun for _, phrase in clause.objects):
                return self.say_wh_question()
            return sentence(english(clause), german_main(clause), "?")
        if draw < 0.6:  # about the object
            clause = self.clause(self.person_verb(objects=1), self.asked_about(), negatable=False)
            slot = clause.objects[0][0]
            if "person" in slot.tags:
                asked = Phrase("who", "who", ("wer", "wen", "wem", "wessen"), "he", "m")
            elif slot.de == "" and self.chance(0.4):
                asked = Phrase("what", "what", ("was", "was", "", ""), "it", "n")
            else:
                noun = self.noun(*slot.tags)
                asked = noun_phrase(noun, "which", plural=bool(noun.en_plural) and self.chance(0.3))
            clause = replace(clause, objects=((slot, asked),), late=NO, manner=NO)
            front, english_side, german_side = without_object(clause)
            return sentence(f"{asked.en} {english_question(english_side)}", german_main(german_side, front), "?")
        word = self.pick(pairs("why|warum;when|wann;where|wo"))
        clause = self.clause(self.action(), self.asked_about(), negatable=word.en == "why")
        clause = replace(clause, time=NO, late=NO, manner=NO, place=NO)
        if "person" not in clause.verb.subjects or (word.en == "where" and len(clause.objects) == 2):
            return self.say_wh_question()
        return sentence(f"{word.en} {english_question(clause)}", german_main(clause, word.de), "?")

    def say_imperative(self) -> Pair:
        """A request to one person: "Mach bitte das Fenster auf!"."""
        verb = self.action()
        if not verb.slots or verb.infinitive in ("bauen", "bitten", "träumen"):
            return self.say_imperative()
        clause = self.clause(verb, pronoun("you"), "pres", negatable=False)
        clause = replace(clause, late=NO, place=NO, manner=NO, time=NO)
        de = words(imperative(verb), german_pronouns(clause), "bitte", german_middle(clause), verb.prefix.strip())
        return sentence(f"please {english_infinitive(clause)}", de, "!")

    def reason(self, subject: Phrase) -> Clause:
        """A state or need of the subject that can explain something."""
        who = pronoun_for(subject)
        draw = self.random()
        if draw < 0.35:
            return Clause(who, self.special["be"], self.pick(("pres", "past")), tail=self.pick(pairs(PREDICATES)))
        if draw < 0.5:
            lacking = noun_phrase(self.noun("having"), "no")
            return Clause(who, self.special["have"], self.pick(("pres", "past")), ((parse_slot("acc:"), lacking),))
        tense = self.pick(("want", "must", "wish", "have"))
        return replace(self.clause(self.action(), who, tense, simple=True), manner=NO)

    def weather(self, tense: str = "pres") -> Clause:
        """An impersonal clause about the weather."""
        it, draw = pronoun("it"), self.random()
        if draw < 0.4:
            verb = self.special[self.pick(("rain", "snow"))]
            return Clause(it, verb, "prog" if tense == "pres" else tense)
        if draw < 0.7:
            return Clause(it, self.special["be"], tense, tail=self.pick(pairs(WEATHERS)))
        weather = noun_phrase(self.by_name["weather"], "the")
        return Clause(
            weather, self.special["be"], tense, tail=self.pick(pairs("good|gut;bad|schlecht;beautiful|schön"))
        )

    def say_because(self) -> Pair:
        """Causes and concessions; the subordinate clause comes second or (with inversion after it) first."""
        subject = self.referable()
        joint = self.pick(pairs("because|weil;because|weil;although|obwohl"))
        main = replace(self.clause(self.action(), subject), manner=NO)
        if self.chance(0.2):
            why = self.weather("past" if main.tense in ("past", "had", "wanted") else "pres")
        else:
            why = self.reason(subject)
            tense = "past" if main.tense in ("past", "had", "wanted") else "pres"
            if why.tense in ("pres", "past"):
                why = replace(why, tense=tense)
            elif tense == "past":
                why = replace(why, tense=self.pick(PAST_MODALS), time=NO)
        if self.chance(0.3) and main.negation != "nicht":
            first = replace(why, subject=subject) if why.subject.key == subject.key else why
            second = replace(main, subject=pronoun_for(subject)) if first is not why else main
            de = f"{joint.de} {german_subordinate(first)}, {german_main(second, subject_first=False)}"
            return sentence(f"{joint.en} {english(first)}, {english(second)}", de)
        return sentence(
            f"{english(main)} {joint.en} {english(why)}", f"{german_main(main)}, {joint.de} {german_subordinate(why)}"
        )

    def say_that(self) -> Pair:
        """Clauses with dass and ob behind verbs of saying and knowing."""
        subject = self.person(adjective=0.2)
        content = self.clause(self.person_verb(), simple=True)
        if "stative" in content.verb.flags and subject.key == content.subject.key:
            return self.say_that()
        if self.chance(0.35):
            matrix = Clause(subject, self.special["know THAT"], "pres", negation="nicht")
            if self.chance(0.4):
                matrix = Clause(subject, self.special["ask WHETHER"], "pres")
            joint = Pair("whether", "ob")
        else:
            matrix = Clause(subject, self.special[self.pick(("say", "hope", "think THAT", "know THAT"))], "pres")
            joint = Pair("that", "dass")
        if self.chance(0.15):
            content = self.weather("fut" if self.chance(0.3) else "pres")
        de = f"{german_main(matrix)}, {joint.de} {german_subordinate(content)}"
        return sentence(f"{english(matrix)} {joint.en} {english(content)}", de)

    def say_indirect_question(self) -> Pair:
        """ "Ich weiß nicht, warum ..." and "Weißt du, wann ...?"."""
        word = self.pick(pairs("why|warum;when|wann;where|wo"))
        content = replace(
            self.clause(self.action(), simple=True, negatable=False), time=NO, late=NO, manner=NO, place=NO
        )
        asks = self.chance(0.3)
        subject = pronoun("you") if asks else self.person(adjective=0.1)
        matrix = Clause(subject, self.special["know THAT"], "pres", negation="" if asks else "nicht")
        en, de = f"{word.en} {english(content)}", f"{word.de} {german_subordinate(content)}"
        if asks:
            return sentence(
                f"{english_question(matrix)} {en}", f"{german_main(matrix, subject_first=False)}, {de}", "?"
            )
        return sentence(f"{english(matrix)} {en}", f"{german_main(matrix)}, {de}")

    def say_if(self) -> Pair:
        """Conditions with wenn in front, real ones and unreal ones (hätte, würde)."""
        subject = self.person(adjective=0.15)
        action = self.action()
        if self.chance(0.35):
            start = self.unreal_state(subject if subject.pronoun else pronoun("I"))
            second = replace(self.clause(action, start.subject, "cond", simple=True), time=NO, late=NO, manner=NO)
        else:
            start = self.weather() if self.chance(0.5) else self.state(self.person(adjective=0.1))
            second = replace(self.clause(action, None, self.pick(("can", "want", "fut", "must"))), manner=NO)
        if self.chance(0.35):
            later = f"{german_main(second)}, wenn {german_subordinate(start)}"
            return sentence(f"{english(second)} if {english(start)}", later)
        de = f"wenn {german_subordinate(start)}, {german_main(second, subject_first=False)}"
        return sentence(f"if {english(start)}, {english(second)}", de)

    def state(self, subject: Phrase) -> Clause:
        """Subject has something or is in some state."""
        if self.chance(0.5):
            return Clause(subject, self.special["be"], "pres", tail=self.pick(pairs(PREDICATES)))
        having = self.by_name[self.pick(("time", "money"))]
        return Clause(subject, self.special["have"], "pres", ((parse_slot("acc:"), noun_phrase(having, "-")),))

    def unreal_state(self, subject: Phrase) -> Clause:
        if self.chance(0.45):
            state = self.pick(
                pairs("rich|reich;hungry|hungrig;sick|krank;in Berlin|in Berlin;in Rome|in Rom;famous|berühmt")
            )
            return Clause(subject, self.special["be"], "irrealis", tail=state)
        noun = self.noun("having") if self.chance(0.3) else self.noun("costly", "lend")
        thing = noun_phrase(noun, "-" if "having" in noun.tags else "a", None)
        return Clause(subject, self.special["have"], "irrealis", ((parse_slot("acc:"), thing),))

    def say_when(self) -> Pair:
        """ "Als" for one past time, and "bevor", "während" with two actions in the present."""
        subject = self.referable()
        who = pronoun_for(subject)
        draw = self.random()
        if draw < 0.35:
            age = self.pick(
                pairs("young|jung;small|klein;in Italy|in Italien;in Vienna|in Wien;sick|krank;at school|in der Schule")
            )
            first = Clause(subject, self.special["be"], "past", tail=age)
            second = self.clause(self.person_verb(), who, "past", simple=True)
            if {"nopast", "stative"} & {*second.verb.flags}:
                return self.say_when()
            second = replace(second, time=NO, manner=NO)
            de = f"als {german_subordinate(first)}, {german_main(second, subject_first=False)}"
            return sentence(f"when {english(first)}, {english(second)}", de)
        joint = self.pick(pairs("before|bevor;while|während"))
        tense = "prog" if joint.en == "while" else "pres"
        other = self.person(adjective=0.1, pronouns=0) if joint.en == "while" else who
        main = replace(self.clause(self.action(), subject, tense, simple=True, negatable=False), time=NO, manner=NO)
        second = self.clause(self.action(), other, tense, simple=True, negatable=False)
        if second.verb == main.verb:
            return self.say_when()
        second = replace(second, time=NO, late=NO, manner=NO, place=NO)
        en, de = f"{joint.en} {english(second)}", f"{joint.de} {german_subordinate(second)}"
        return sentence(f"{english(main)} {en}", f"{german_main(main)}, {de}")

    def relative(self, noun: Noun, plural: bool) -> Pair:
        """A relative clause about the noun: as subject, as object, or with "whose"."""
        gender = "p" if plural else noun.gender
        forms = [cell(DEFINITE, gender, case) for case in CASES]
        forms[2] = "denen" if plural else forms[2]
        person = "person" in noun.tags
        if person and self.chance(0.5):
            who = Phrase("who", "who", (forms[0], forms[1], forms[2], ""), noun_key(noun, plural), gender, pronoun=True)
            clause = replace(self.clause(self.person_verb(), who, simple=True), manner=NO)
            return Pair(f" {english(clause)}", f", {german_subordinate(clause)},")
        if person and self.chance(0.3):
            thing = self.noun("vehicle", "garment", "pet", "kin")
            owned = replace(noun_phrase(thing, "-"), de=(thing.de, "", "", ""))
            adjective = self.adjective(thing)
            assert adjective is not None
            clause = Clause(owned, self.special["be"], "pres", tail=Pair(adjective.en[0], adjective.de[0]))
            genitive = "deren" if gender in "fp" else "dessen"
            return Pair(f" whose {english(clause)}", f", {genitive} {german_subordinate(clause)},")
        fitting = [
            verb
            for verb in self.verbs
            if len(verb.slots) == 1
            and verb.subjects != ("goods",)
            and any(tag in noun.tags for tag in verb.slots[0].tags)
        ]
        clause = replace(self.clause(self.pick(fitting), simple=True, negatable=False), manner=NO, late=NO)
        if clause.subject.noun == noun:
            return self.relative(noun, plural)
        word = "whom" if person else "that"
        that = Phrase(word, word, (forms[0], forms[1], forms[2], ""), noun_key(noun, plural), gender, pronoun=True)
        front, english_side, german_side = without_object(replace(clause, objects=((clause.objects[0][0], that),)))
        return Pair(f" {word} {english(english_side)}", f", {front} {german_subordinate(german_side)},")

    def with_relative(self, *tags: str, adjective: float = 0.2) -> Phrase:
        """A noun phrase that ends in a relative clause; relatives ("the aunt whom I know") seldom need one."""
        noun = self.noun(*tags)
        while "kin" in noun.tags:
            noun = self.noun(*tags, "person", "pet")
        many = bool(noun.en_plural) and ("pair" in noun.tags or self.chance(0.25))
        chosen = self.adjective(noun) if self.chance(adjective) else None
        det = "a" if not many and self.chance(0.2) else "the"
        return noun_phrase(noun, det, chosen, many, after=self.relative(noun, many))

    def say_relative(self) -> Pair:
        """A relative clause at the subject (of a description) or at an object."""
        if self.chance(0.5):
            subject = self.with_relative("person", "garment", "text", "vehicle", "thing", "food", adjective=0)
            noun = subject.noun
            assert noun is not None
            adjective = self.adjective(noun)
            if adjective is None or subject.en.startswith(("a ", "an ")):
                return self.say_relative()
            clause = Clause(subject, self.special["be"], self.pick(("pres", "pres", "past")))
            clause = replace(
                clause, tail=Pair(adjective.en[0], adjective.de[0]), negation="nicht" if self.chance(0.2) else ""
            )
            return sentence(english(clause), german_main(clause))
        verb = self.verb(lambda v: len(v.slots) == 1 and not v.particle and not v.prefix and "person" in v.subjects)
        clause = self.clause(verb, simple=True, negatable=False)
        slot = verb.slots[0]
        clause = replace(clause, objects=((slot, self.with_relative(*slot.tags)),), time=NO, place=NO, late=NO)
        return sentence(english(clause), german_main(clause))

    def say_coordination(self) -> Pair:
        """Two main clauses joined by and, or, but."""
        joint = self.pick(pairs(", and| und;, but|, aber"))
        parts = [replace(self.clause(self.person_verb(), simple=True), manner=NO) for _ in range(2)]
        if parts[0].subject.en == parts[1].subject.en or parts[0].verb == parts[1].verb:
            return self.say_coordination()
        en = f"{english(parts[0])}{joint.en} {english(parts[1])}"
        return sentence(en, f"{german_main(parts[0])}{joint.de} {german_main(parts[1])}")

    def say_long(self) -> Pair:
        """A main clause with a fronted time, "but" and another one that has a subordinate clause with it."""
        first = self.statement(self.clause(self.action()))
        second = self.pick((self.say_because, self.say_that, self.say_relative, self.say_motion, self.say_infinitive))()
        if "?" in first.en + second.en:
            return self.say_long()
        starts = {"I", "Anna", *words(lexicon.MEN, lexicon.WOMEN).split()}
        openings = [text.split(" ")[0].split("'")[0] for text in second]
        lowered = [
            text if opening in starts and not (opening == "I" and text == second.de) else text[0].lower() + text[1:]
            for text, opening in zip(second, openings, strict=True)
        ]
        return Pair(f"{first.en[:-1]}, but {lowered[0]}", f"{first.de[:-1]}, aber {lowered[1]}")

    def say_it(self) -> Pair:
        """A second clause takes up a thing: "it" becomes er, sie or es."""
        noun = self.noun("goods", "garment", "furniture", "vehicle", "lose")
        adjective, other = self.adjective(noun), self.adjective(noun)
        if adjective is None or other is None or adjective == other or adjective.en[0] in COLOURS.split():
            return self.say_it()
        thing = self.phrase(noun, definite=True, adjective=0, plural=0.25)
        it = pronoun_for(thing)
        about = Clause(it, self.special["be"], "pres", tail=Pair(adjective.en[0], adjective.de[0]))
        draw = self.random()
        if draw < 0.45:
            return self.act_for_quality(thing, about)
        first = replace(about, subject=thing)
        if draw < 0.75:  # is old, but I need it
            second = self.act_on(it, noun, "need buy sell repair wear steal lose find")
        else:  # is old, but it is not expensive
            second = replace(about, negation="nicht", tail=Pair(other.en[0], other.de[0]))
        return sentence(f"{english(first)}, but {english(second)}", f"{german_main(first)}, aber {german_main(second)}")

    def act_on(self, thing: Phrase, noun: Noun, bases: str = "") -> Clause:
        """Somebody does something with a given thing; ``bases`` limits the English verbs."""
        fitting = [
            verb
            for verb in self.verbs
            if len(verb.slots) == 1
            and verb.slots[0].case == "acc"
            and any(tag in noun.tags for tag in verb.slots[0].tags)
            and (not bases or verb.base in bases.split())
            and not verb.slots[0].de
        ]
        verb = self.pick(fitting or [verb for verb in self.verbs if verb.base == "like"])
        clause = self.clause(verb, self.person(adjective=0.1), simple=True, negatable=False)
        return replace(clause, objects=((verb.slots[0], thing),), manner=NO, place=NO)

    def act_for_quality(self, thing: Phrase, about: Clause) -> Pair:
        """Buys it because it is cheap, sells it although it is cheap."""
        assert thing.noun is not None
        quality = about.tail.en
        if quality not in words(MERITS, FAULTS).split():
            return self.say_it()
        main = self.act_on(thing, thing.noun)
        if "event" in main.verb.flags and main.verb.base != "steal":  # nobody loses a thing for being expensive
            return self.say_it()
        turned = main.verb.base in ("sell", "wash", "repair", "clean", "give", "lose")
        expected = (quality in MERITS.split()) != turned
        joint = Pair("because", "weil") if expected else Pair("although", "obwohl")
        de = f"{german_main(main)}, {joint.de} {german_subordinate(about)}"
        return sentence(f"{english(main)} {joint.en} {english(about)}", de)

    def say_description(self) -> Pair:
        """Predicate adjectives, in statements, negations and questions."""
        subject = self.phrase(
            self.noun("person", "animal", "thing", "garment", "furniture", "place", "vehicle", "text"), True
        )
        subject = self.person() if self.chance(0.3) else subject
        if self.chance(0.25):
            subject = self.with_genitive(self.noun("vehicle", "garment", "pet", "goods", "building", "settlement"))
        if subject.noun is None:
            adjective = self.pick([adjective for adjective in self.adjectives if "person" in adjective.tags])
        else:
            found = self.adjective(subject.noun)
            if found is None:
                return self.say_description()
            adjective = found
        degree = self.pick(pairs("|;|;very|sehr;too|zu;not|nicht"))
        clause = Clause(
            subject, self.special["be"], self.pick(("pres", "past")), tail=Pair(adjective.en[0], adjective.de[0])
        )
        if adjective.en[0] in subject.en or (adjective.en[0] in ABSOLUTE.split() and degree.en not in ("", "not")):
            return self.say_description()
        if degree.en == "too" and adjective.en[0] not in TOO.split():
            degree = Pair("very", "sehr")
        if degree.en == "not":
            clause = replace(clause, negation="nicht")
        elif degree.en:
            clause = replace(clause, tail=Pair(f"{degree.en} {adjective.en[0]}", f"{degree.de} {adjective.de[0]}"))
        if self.chance(0.2):
            clause = replace(clause, negation="")
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        return sentence(english(clause), german_main(clause))

    def with_genitive(self, noun: Noun) -> Phrase:
        """Possession: Anna's bicycle, my brother's bicycle, the roof of the old house."""
        if "building" in noun.tags or "settlement" in noun.tags:
            street = self.by_name[self.pick(("door", "window", "garden"))]
            whole = self.phrase(noun, definite=True, plural=0, adjective=0.5)
            return noun_phrase(street, "the", after=Pair(f" of {whole.en}", f" {whole.german('gen')}"))
        if self.chance(0.3):
            return noun_phrase(noun, self.name().en + "'s", self.adjective(noun) if self.chance(0.3) else None)
        owner = self.phrase(self.noun("person"), definite=True, plural=0, adjective=0.3)
        many = "pair" in noun.tags or (bool(noun.en_plural) and self.chance(0.15))
        plain = noun_phrase(noun, "-", plural=many)
        owned = noun_phrase(noun, "the", plural=many, after=Pair("", f" {owner.german('gen')}"))
        english_side = f"{owner.en}'s {plain.en}"
        return replace(owned, en=english_side, en_object=english_side)

    def say_genitive(self) -> Pair:
        """Possession as an object, and the prepositions with the genitive."""
        if self.chance(0.6):
            verb = self.verb(lambda v: len(v.slots) == 1 and "person" not in v.slots[0].tags and "person" in v.subjects)
            slot = verb.slots[0]
            noun = self.noun(*slot.tags)
            if (
                not {"lend", "garment", "pet", "text", "lose", "goods", "kin", "vehicle"} & {*noun.tags}
                or "mass" in noun.tags
            ):
                return self.say_genitive()
            clause = replace(
                self.clause(verb, simple=True, negatable=False), objects=((slot, self.with_genitive(noun)),)
            )
            return self.statement(clause)
        cause = self.pick(pairs("because of|wegen;despite|trotz;during|während"))
        noun = self.noun("weather") if cause.en != "during" and self.chance(0.5) else self.noun("event", "fun")
        if cause.en != "during" and "fun" in noun.tags:
            return self.say_genitive()
        adjective = self.pick([a for a in self.adjectives if a.en[0] in ("bad", "good", "beautiful")])
        adjective_used = adjective if noun.en == "weather" else self.adjective(noun) if self.chance(0.4) else None
        reason = noun_phrase(noun, "the", adjective_used)
        verb = self.verb(lambda v: not v.slots and v.prefix != "ein") if noun.en == "weather" else self.action()
        clause = replace(self.clause(verb, None, self.pick(("past", "had", "pres")), simple=True), time=NO, manner=NO)
        if "nopast" in clause.verb.flags and clause.tense == "past":
            return self.say_genitive()
        return sentence(
            f"{cause.en} {reason.en}, {english(clause)}", german_main(clause, f"{cause.de} {reason.german('gen')}")
        )

    def say_comparison(self) -> Pair:
        """Comparatives, equality, and superlatives with their endings."""
        noun = self.noun(*COMPARED)
        adjective = self.adjective(noun)
        if adjective is None or adjective.en[0] in words(ABSOLUTE, MOODS).split():
            return self.say_comparison()
        draw = self.random()
        if draw < 0.5:
            return self.compare(noun, adjective)
        if draw < 0.75:
            return self.praise(noun, adjective)
        if "person" in noun.tags or "place" in noun.tags:
            return self.say_comparison()
        thing = noun_phrase(noun, "a", adjective, degree=1)
        clause = self.act_on(thing, noun, "need buy look order")
        return sentence(english(clause), german_main(clause))

    def compare(self, noun: Noun, adjective: Adjective) -> Pair:
        """older than, (not) as old as"""
        kind = next(tag for tag in noun.tags[::-1] if tag in COMPARED)
        rivals = [other for other in self.nouns if kind in other.tags and other != noun]
        rivals = [other for other in rivals if any(tag in other.tags for tag in adjective.tags)]
        if not rivals:
            return self.say_comparison()
        subject = self.phrase(noun, definite=True, adjective=0, plural=0.2)
        rival = self.phrase(self.pick(rivals), definite=True, adjective=0, plural=0.2)
        clause = Clause(subject, self.special["be"], "pres")
        if self.chance(0.6):
            tail = Pair(f"{adjective.en[1]} than {rival.en}", f"{adjective.de[1]} als {rival.german('nom')}")
            clause = replace(clause, tail=tail)
        else:
            tail = Pair(f"as {adjective.en[0]} as {rival.en}", f"so {adjective.de[0]} wie {rival.german('nom')}")
            clause = replace(clause, tail=tail, negation="nicht" if self.chance(0.5) else "")
        return sentence(english(clause), german_main(clause))

    def praise(self, noun: Noun, adjective: Adjective) -> Pair:
        """This is the oldest house in the town (that I know)."""
        best = noun_phrase(noun, "the", adjective, degree=2)
        known = "that I know|ich kenne;that we have seen|wir gesehen haben;that he has seen|er gesehen hat"
        if "food" in noun.tags:
            known = "that I have eaten|ich gegessen habe;that we have bought|wir gekauft haben"
        extra = self.pick(pairs(known))
        addition = Pair(extra.en, f", {cell(DEFINITE, noun.gender, 'acc')} {extra.de}")
        if "building" in noun.tags or ("person" in noun.tags and self.chance(0.6)):
            place = self.where(self.pick([p for p in self.places if p.noun.en in ("town", "village")]), 0)
            addition = Pair(place.en, f" {place.de}")
        subject = Phrase("this", "this", ("das", "das", "", ""), "it", "n")
        tail = Pair(f"{best.en} {addition.en}", best.german("nom") + addition.de)
        clause = Clause(subject, self.special["be"], "pres", tail=tail)
        return sentence(english(clause), german_main(clause))

    def say_motion(self) -> Pair:
        """Going somewhere: zu, in with the accusative, nach."""
        verb = self.special[self.pick(("go", "drive", "run", "go", "fly", "travel"))]
        if verb.base in ("fly", "travel"):
            city = self.pick(pairs(lexicon.CITIES))
            tail = Pair(f"to {city.en}", f"nach {city.de}")
        else:
            tail = self.whereto()
        if verb.base == "drive" and not tail.en.startswith("to "):
            return self.say_motion()
        tense = self.tense(verb)
        clause = Clause(self.person(), verb, tense, tail=tail, time=self.time(tense, verb) if self.chance(0.6) else NO)
        if self.chance(0.15) and tense not in ("must", "may"):
            clause = replace(clause, negation="nicht")
        elif tense == "pres" and self.chance(0.4):
            clause = replace(clause, time=NO, late=self.pick(pairs(lexicon.FREQUENCIES)))
        draw = self.random()
        if draw < 0.12 and not clause.negation:
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        if draw < 0.22 and tense in ("prog", "past", "want", "must", "fut", "perf"):
            clause = replace(clause, tail=NO, late=NO, negation="")
            return sentence(f"where {english_question(clause)}", german_main(clause, "wohin"), "?")
        if draw < 0.4 and tense in ("prog", "pres", "want", "past"):
            goal = self.clause(self.action(), clause.subject, "pres", simple=True, negatable=False)
            goal = replace(goal, time=NO, late=NO, manner=NO, place=NO)
            en = f"{english(clause)} in order to {english_infinitive(goal)}"
            return sentence(en, f"{german_main(clause)}, um {german_infinitive(goal)}")
        return self.statement(clause)

    def location(self, kind: str) -> tuple[Pair, Phrase]:
        """A two-way preposition with a piece of furniture to lie (stand, ...) on, under, next to."""
        noun = self.noun("surface")
        options = "on|auf;next to|neben;behind|hinter;in front of|vor;under|unter"
        if noun.en in ("cupboard", "carpet"):
            options = "on|auf;next to|neben"
        return self.pick(pairs(options)), self.phrase(noun, definite=True, adjective=0.3, plural=0)

    def say_position(self) -> Pair:
        """Two-way prepositions: dative for where (liegt auf dem Tisch), accusative for whereto (legt auf den Tisch)."""
        kind = self.pick(("lie", "stand", "hang"))
        thing = self.phrase(self.noun(kind), definite=self.chance(0.8), adjective=0.35, plural=0.2)
        preposition, where = self.location(kind)
        if kind == "hang":
            preposition = self.pick(pairs("next to|neben;above|über;behind|hinter"))
            where = self.phrase(
                self.noun("door", "sofa", "desk", "window", "bed"), definite=True, adjective=0.2, plural=0
            )
        if where.noun == thing.noun:
            return self.say_position()
        draw = self.random()
        if draw < 0.45:
            verb = self.special[kind if kind != "hang" else "hang INTRANSITIVE"]
            tail = Pair(f"{preposition.en} {where.en}", prepositional(preposition.de, where, "dat"))
            clause = Clause(
                thing, verb, "prog", tail=tail, negation="nicht" if thing.definite and self.chance(0.2) else ""
            )
            if self.chance(0.15):
                clause = replace(clause, negation="")
                return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
            return sentence(english(clause), german_main(clause))
        if draw < 0.55:  # people: sits on, sits down on
            seat = self.phrase(self.noun("chair", "sofa", "bench", "bed"), definite=True, adjective=0.3, plural=0)
            down = self.chance(0.5)
            verb = self.special["sit down" if down else "sit"]
            tense = self.pick(("prog", "past", "want"))
            tail = Pair(f"on {seat.en}", prepositional("auf", seat, "acc" if down else "dat"))
            return self.statement(
                Clause(self.person(), verb, tense, tail=tail, time=self.time(tense) if self.chance(0.3) else NO)
            )
        verb = self.special[{"lie": "lay", "stand": "put", "hang": "hang"}[kind]]
        tense = self.pick(("prog", "perf", "fut", "want", "must", "can", "had"))
        tail = Pair(f"{preposition.en} {where.en}", prepositional(preposition.de, where, "acc", local=False))
        clause = Clause(self.person(), verb, tense, ((verb.slots[0], thing),), tail=tail)
        return self.statement(replace(clause, time=self.time(tense) if self.chance(0.3) else NO))

    def say_living(self) -> Pair:
        """Living and staying somewhere."""
        city = self.pick(pairs(lexicon.CITIES))
        place = Pair(f"in {city.en}", f"in {city.de}")
        if self.chance(0.5):
            spots = [
                p
                for p in self.places
                if p.noun.en in ("village", "town", "hotel", "castle", "house", "island", "lake", "forest")
            ]
            place = self.where(self.pick(spots), 0.6)
        verb = self.special[self.pick(("live", "live", "stay"))]
        if verb.base == "stay":
            clause = Clause(
                self.person(), verb, self.pick(("want", "fut", "must", "past", "can", "wanted")), tail=place
            )
            clause = replace(clause, time=self.time(clause.tense, verb) if self.chance(0.5) else NO)
            return self.statement(clause)
        clause = Clause(self.person(), verb, "pres", tail=place, negation="nicht" if self.chance(0.2) else "")
        if self.chance(0.2) and not clause.negation:
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        return sentence(english(clause), german_main(clause))

    def say_having(self) -> Pair:
        """Owning things, with kein for the lack of them."""
        noun = self.noun("goods", "pet", "kin", "own", "costly", "having", "task")
        if noun.en in ("father", "mother"):
            return self.say_having()
        many = bool(noun.en_plural) and self.chance(0.3)
        draw = self.random()
        subject, tense = self.person(), self.pick(("pres", "pres", "past"))
        mass = "having" in noun.tags
        if draw < 0.4:
            thing = noun_phrase(noun, "no", plural=many)
        else:
            det = "-" if many or mass else "a"
            thing = noun_phrase(noun, det, self.adjective(noun) if self.chance(0.6) else None, many)
        clause = Clause(subject, self.special["have"], tense, ((parse_slot("acc:"), thing),))
        if draw > 0.85:
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        return sentence(english(clause), german_main(clause))

    def say_there_is(self) -> Pair:
        """ "In der Stadt gibt es ein Museum": what there is stands in the accusative."""
        place = self.where(self.pick([p for p in self.places if p.noun.en in ("town", "village", "island")]), 0.4)
        noun = self.noun("building")
        if noun.en == "house":
            return self.say_there_is()
        chosen = self.adjective(noun) if self.chance(0.6) else None
        draw = self.random()
        if draw < 0.4:
            thing, verb = noun_phrase(noun, "a", chosen), "is"
        elif draw < 0.65:
            thing, verb = noun_phrase(noun, "no", chosen), "is"
        else:
            thing, verb = noun_phrase(noun, "-", chosen, True, count=number_words(self.between(2, 12))), "are"
        if draw < 0.1:
            return sentence(f"is there {thing.en} {place.en}", f"gibt es {place.de} {thing.german('acc')}", "?")
        return sentence(f"{place.en} there {verb} {thing.en}", f"{place.de} gibt es {thing.german('acc')}")

    def say_passive(self) -> Pair:
        """Passives of the present and the past."""
        bases = (
            "repair",
            "build",
            "sell",
            "clean",
            "wash",
            "steal",
            "find",
            "open",
            "close",
            "paint",
            "translate",
            "bake",
        )
        verb = self.pick([v for v in self.verbs if v.base in bases and len(v.slots) == 1 and v.particle == ""])
        tense = "passive_past" if {"event"} & {*verb.flags} or self.chance(0.5) else "passive"
        subject = self.phrase(self.noun(*verb.slots[0].tags), definite=True, adjective=0.4, plural=0.3)
        clause = Clause(
            subject,
            verb,
            tense,
            time=self.time("past" if tense == "passive_past" else "prog", verb) if self.chance(0.6) else NO,
        )
        if self.chance(0.15):
            clause = replace(clause, negation="nicht")
        if self.chance(0.15):
            clause = replace(clause, negation="")
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        return self.statement(clause)

    def say_infinitive(self) -> Pair:
        """Infinitive groups: versuchen zu, vergessen zu, ohne zu."""
        subject = self.person()
        goal = self.clause(self.action(), subject, "pres", simple=True, negatable=False)
        goal = replace(goal, time=NO, late=NO, manner=NO, place=NO)
        if self.chance(0.6):
            verb = self.special[self.pick(("try", "forget TO"))]
            tense = (
                self.pick(("past", "perf")) if verb.base == "forget" else self.pick(("prog", "past", "perf", "want"))
            )
            matrix = Clause(
                subject, verb, tense, time=self.time(tense) if tense in ("prog", "past") and self.chance(0.3) else NO
            )
            en = f"to {english_infinitive(goal)}"
            if matrix.time.de:
                bare = replace(matrix, time=NO)
                front = german_main(bare, matrix.time.de)
                return sentence(f"{matrix.time.en}, {english(bare)} {en}", f"{front}, {german_infinitive(goal)}")
            return sentence(f"{english(matrix)} {en}", f"{german_main(matrix)}, {german_infinitive(goal)}")
        main = replace(self.clause(self.action(), subject, simple=True, negatable=False), manner=NO)
        if main.verb == goal.verb:
            return self.say_infinitive()
        ing = Clause(subject, goal.verb, "prog", goal.objects)
        en = f"{english(main)} without {words(goal.verb.ing, english_complements(ing))}"
        return sentence(en, f"{german_main(main)}, ohne {german_infinitive(goal)}")

    def say_topic(self) -> Pair:
        """An object in front, which English marks by the same order."""
        verb = self.verb(
            lambda v: len(v.slots) == 1 and v.slots[0].en == "" and v.particle == "" and "person" in v.subjects
        )
        slot = verb.slots[0]
        noun = self.noun(*slot.tags)
        if "kin" in noun.tags:
            return self.say_topic()
        clause = self.clause(verb, pronoun(self.pick(("I", "you", "we", "they", "he", "she"))))
        many = bool(noun.en_plural) and self.chance(0.25)
        thing = noun_phrase(noun, "this", self.adjective(noun) if self.chance(0.3) else None, many)
        clause = replace(clause, objects=((slot, thing),), manner=NO, negation="nicht" if clause.negation else "")
        front, english_side, german_side = without_object(clause)
        return sentence(f"{thing.en} {english(english_side)}", german_main(german_side, front))

    def say_belonging(self) -> Pair:
        verb = next(verb for verb in self.verbs if verb.base == "belong")
        thing = self.phrase(self.noun("goods", "lose", "vehicle", "pet"), definite=True, adjective=0.4)
        slot = verb.slots[0]
        clause = Clause(thing, verb, "pres", ((slot, self.object_for(slot, thing, True, True)),))
        draw = self.random()
        if draw < 0.2:
            return sentence(english_question(clause), german_main(clause, subject_first=False), "?")
        if draw < 0.35:
            who = Phrase("who", "who", ("wer", "wen", "wem", "wessen"), "he", "m")
            front, english_side, german_side = without_object(replace(clause, objects=((slot, who),)))
            return sentence(f"who {english_question(english_side)}", german_main(german_side, front), "?")
        clause = replace(clause, negation="nicht" if draw < 0.5 else "")
        return sentence(english(clause), german_main(clause))

    # Numbers, times of day and dates.

    def number(self, low: int, high: int) -> Pair:
        """Number words in front of a noun; numbers in 1 and 101 would need an inflected "ein"."""
        number = self.between(low, high)
        while number % 100 == 1:
            number = self.between(low, high)
        return number_words(number)

    def say_count(self) -> Pair:
        """A counted noun as the object, with the strong plural endings."""
        verb = self.pick(
            [
                v
                for v in self.verbs
                if v.base in ("buy", "need", "sell", "read", "eat", "bake", "write", "see", "photograph", "bring")
            ]
        )
        if len(verb.slots) != 1 or verb.particle:
            return self.say_count()
        noun = self.noun(*verb.slots[0].tags)
        if not noun.en_plural:
            return self.say_count()
        few = self.chance(0.5) or verb.base in ("eat", "see", "photograph") or "costly" in noun.tags
        count = self.number(2, 9) if few else self.number(10, 120)
        thing = noun_phrase(noun, "-", self.adjective(noun) if self.chance(0.35) else None, True, count=count)
        clause = self.clause(verb, negatable=False)
        return self.statement(replace(clause, objects=((verb.slots[0], thing),), late=NO, manner=NO))

    def say_price(self) -> Pair:
        """Prices, from cheap things to houses."""
        kind, low, high = self.pick(HIGH_PRICES if self.chance(0.35) else PRICES)
        noun = self.noun(kind)
        thing = self.phrase(noun, definite=True, adjective=0.4, plural=0.12)
        cost = self.special["cost"]
        if self.chance(0.12):
            clause = Clause(thing, cost, "pres")
            return sentence(f"how much {english_question(clause)}", german_main(clause, "wie viel"), "?")
        price = self.number(low, high)
        return self.statement(Clause(thing, cost, "pres", tail=Pair(f"{price.en} euros", f"{price.de} Euro")))

    def say_measure(self) -> Pair:
        """Ages, lengths, heights, pages, inhabitants, kilometres."""
        if self.chance(0.35):
            young = self.chance(0.2)
            subject = self.person(*("young",) if young else (), adjective=0.1)
            if not young and subject.noun and "young" in subject.noun.tags:
                return self.say_measure()
            number = self.number(3, 15) if young else self.number(19, 95)
            tail = Pair(f"{number.en} years old", f"{number.de} Jahre alt")
            return self.statement(Clause(subject, self.special["be"], "pres", tail=tail))
        verb, table = self.pick((("be", SIZES), ("have", CONTENTS)))
        name, low, high, size = self.pick(table)
        unit, number = Pair(*size.split("|")), self.number(low, high)
        subject = self.phrase(self.by_name[name], definite=True, adjective=0.3, plural=0)
        tail = Pair(f"{number.en} {unit.en}", f"{number.de} {unit.de}")
        return self.statement(Clause(subject, self.special[verb], "pres", tail=tail))

    def clock(self, low: int = 1, high: int = 12) -> Pair:
        return clock_time(self.between(low, high), 5 * self.between(0, 11))

    def say_clock(self) -> Pair:
        """Clock times: um halb vier, um Viertel vor sieben."""
        if self.chance(0.08):
            time = self.clock()
            return sentence(f"it is {time.en}", f"es ist {time.de}")
        half = self.pick(pairs(" in the morning| morgens; in the evening| abends;|;|"))
        time = self.clock(6, 10) if half.en else self.clock()
        when = Pair(f"at {time.en}{half.en}", f"um {time.de}{half.de}")
        if self.chance(0.45):
            clause = self.clause(self.verb(lambda v: v.infinitive in DAILY.split()), simple=True, negatable=False)
            tense = self.pick(("pres", "past", "fut", "want", "must"))
            clause = replace(clause, tense=tense, late=NO, manner=NO, place=NO)
        else:
            clause = self.scheduled(half.en)
        clause = replace(clause, time=when)
        if self.chance(0.25):
            weekday = self.pick(pairs(lexicon.WEEKDAYS))
            return sentence(f"on {weekday.en}, {english(clause)}", german_main(clause, f"am {weekday.de}"))
        return self.statement(clause)

    def scheduled(self, half: str) -> Clause:
        """What happens by the clock; shops open in the morning and close in the evening."""
        shutting = "open" if "morning" in half else "close" if half else self.pick(("open", "close"))
        kind, verb = self.pick((("public", "arrive"), ("public", "depart"), ("event", "begin"), ("shut", shutting)))
        noun = self.noun(kind)
        while noun.en == "plane" and verb == "depart":  # a plane "fliegt ab"
            noun = self.noun(kind)
        subject = self.phrase(noun, definite=True, adjective=0.25, plural=0.1)
        name = f"{verb} INTRANSITIVE" if kind == "shut" else verb
        return Clause(subject, self.special[name], self.pick(("pres", "pres", "past", "fut")))

    def date(self) -> tuple[int, int]:
        month = self.between(1, 12)
        return self.between(1, lexicon.MONTH_DAYS[month - 1]), month

    def say_date(self) -> Pair:
        """Dates and weekdays: am dritten Mai, am Montag, dem dritten Mai, im Jahr ..."""
        day, month = self.date()
        date, weekday = date_words(day, month), self.pick(pairs(lexicon.WEEKDAYS))
        draw = self.random()
        if draw < 0.12:
            nominative = date_words(day, month, "e")
            return sentence(f"today is {weekday.en}, {nominative.en}", f"heute ist {weekday.de}, der {nominative.de}")
        on = Pair(f"on {date.en}", f"am {date.de}")
        if draw < 0.25:
            on = Pair(f"on {weekday.en}, {date.en}", f"am {weekday.de}, dem {date.de}")
        if draw < 0.45:
            verb = self.special["take place"]
            subject = self.phrase(self.noun("event"), definite=True, adjective=0.3, plural=0)
            clause = Clause(subject, verb, self.pick(("pres", "fut", "past")), time=on)
            comma = "," if on.de.count(",") else ""  # the apposition is closed by a comma inside the German clause
            return sentence(english(clause), german_main(replace(clause, time=Pair(on.en, on.de + comma))))
        if draw < 0.6:
            owner = self.pick(("my", "your", "his", "her", "our boss's|unseres Chefs", self.name().en + "'s"))
            if "|" in owner:
                en, genitive = owner.split("|")
                return sentence(f"{en} birthday is {on.en}", f"der Geburtstag {genitive} ist {on.de}")
            return sentence(f"{owner} birthday is {on.en}", f"{article(owner, 'm', 'nom')} Geburtstag ist {on.de}")
        if draw < 0.8:
            year = year_words(self.between(1650, 1999) if self.chance(0.7) else self.between(2001, 2024))
            when = Pair(f"in the year {year.en}", f"im Jahr {year.de}")
            return self.historical(when)
        clause = self.clause(self.action(), simple=True, negatable=False)
        clause = replace(clause, tense=self.pick(("fut", "past", "want")), time=on, late=NO, manner=NO, place=NO)
        if "nopast" in clause.verb.flags:
            clause = replace(clause, tense="fut")
        return self.statement(clause)

    def historical(self, when: Pair) -> Pair:
        """What was built (or who was born) in some year."""
        if self.chance(0.35):
            year = year_words(self.between(1931, 1999) if self.chance(0.7) else self.between(2001, 2015))
            when = Pair(f"in the year {year.en}", f"im Jahr {year.de}")
            subject = self.person(adjective=0.15)
            born = Pair("born", "geboren")
            was = english_be(subject.key, True)
            return sentence(
                f"{subject.en} {was} {born.en} {when.en}",
                f"{subject.german('nom')} {aux('wurde', subject.key)} {when.de} {born.de}",
            )
        verb = next(verb for verb in self.verbs if verb.base == "build")
        subject = self.phrase(self.noun("build", "building"), definite=True, adjective=0.4, plural=0.15)
        return self.statement(Clause(subject, verb, "passive_past", time=when))


# Relative weights of the sentence patterns; numbers, clock times and dates make up about a sixth.
PATTERNS: tuple[tuple[int, Callable[[Grammar], Pair]], ...] = (
    (130, Grammar.say_transitive),
    (50, Grammar.say_intransitive),
    (70, Grammar.say_ditransitive),
    (45, Grammar.say_question),
    (50, Grammar.say_wh_question),
    (25, Grammar.say_imperative),
    (65, Grammar.say_because),
    (45, Grammar.say_that),
    (25, Grammar.say_indirect_question),
    (40, Grammar.say_if),
    (30, Grammar.say_when),
    (65, Grammar.say_relative),
    (25, Grammar.say_coordination),
    (75, Grammar.say_long),
    (45, Grammar.say_it),
    (35, Grammar.say_description),
    (30, Grammar.say_genitive),
    (35, Grammar.say_comparison),
    (50, Grammar.say_motion),
    (45, Grammar.say_position),
    (20, Grammar.say_living),
    (20, Grammar.say_having),
    (10, Grammar.say_there_is),
    (20, Grammar.say_passive),
    (30, Grammar.say_infinitive),
    (20, Grammar.say_topic),
    (12, Grammar.say_belonging),
    (40, Grammar.say_count),
    (30, Grammar.say_price),
    (35, Grammar.say_measure),
    (65, Grammar.say_clock),
    (50, Grammar.say_date),
)


# --- The corpus -------------------------------------------------------------------------------------------------------


def make_pairs(grammar: Grammar, count: int) -> list[Pair]:
    """Draw distinct pairs; a sentence seen before on either side is dropped, so each has one translation."""
    result: list[Pair] = []
    seen_en: dict[str, str] = {}
    seen_de: dict[str, str] = {}
    total = sum(weight for weight, _ in PATTERNS)
    while len(result) < count:
        draw = grammar.random() * total
        chosen = 0
        while draw >= PATTERNS[chosen][0]:
            draw -= PATTERNS[chosen][0]
            chosen += 1
        pair = PATTERNS[chosen][1](grammar)
        length = max(len(pair.en.split()), len(pair.de.split()))
        if length > MAX_WORDS or length < 3 or pair.en in seen_en or pair.de in seen_de:
            continue
        seen_en[pair.en] = pair.de
        seen_de[pair.de] = pair.en
        result.append(pair)
    return result


def vocabulary(pair: Pair) -> list[str]:
    """The words of both sides, marked with their language, without punctuation."""
    found = [f"en {word}" for word in re.findall(r"[\w'-]+", pair.en)]
    return found + [f"de {word}" for word in re.findall(r"[\w'-]+", pair.de)]


def is_composed_number(word: str) -> bool:
    """A number word built from parts (or the date ordinal made from one), which may be new in the test set."""
    number = "|".join([*lexicon.EN_ONES, *lexicon.EN_TENS, *lexicon.DE_ONES, *lexicon.DE_TENS, "hundert", "tausend"])
    return bool(re.fullmatch(f"(en|de) (({number}|eins|und|-)+)(ste[n]?)?", word.lower()))


def split_pairs(everything: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Cut off validation and test pairs whose words are all common enough in what is left for training."""
    counts = Counter(word for pair in everything for word in vocabulary(pair))
    held_out: list[Pair] = []
    train: list[Pair] = []
    wanted = SPLIT_SIZES["valid"] + SPLIT_SIZES["test"]
    for pair in everything:
        own = Counter(word for word in vocabulary(pair) if not is_composed_number(word))
        if len(held_out) < wanted and all(counts[word] - used >= MIN_TRAIN_COUNT for word, used in own.items()):
            counts.subtract(own)
            held_out.append(pair)
        else:
            train.append(pair)
    return {"train": train, "valid": held_out[0::2], "test": held_out[1::2]}


def make_corpus(seed: int = SEED) -> dict[str, list[Pair]]:
    """All splits; the pairs come in random order already, each drawn from a pattern of its own."""
    return split_pairs(make_pairs(Grammar(seed), sum(SPLIT_SIZES.values())))


def write_corpus(folder: Path, corpus: dict[str, list[Pair]]) -> None:
    """One sentence a line, UTF-8, with the same line ends on every platform."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, split_set in corpus.items():
        for language in ("en", "de"):
            lines = [getattr(pair, language) + "\n" for pair in split_set]
            (folder / f"{split}.{language}").write_bytes("".join(lines).encode("utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Generate the English-German quick-start corpus.")
    default = Path(__file__).resolve().parent / "quickstart"
    parser.add_argument("--output", type=Path, default=default, help="folder to write to (default: %(default)s)")
    options = parser.parse_args(arguments)
    corpus = make_corpus()
    write_corpus(options.output, corpus)
    for split, split_set in corpus.items():
        print(f"{split}: {len(split_set)} pairs")


if __name__ == "__main__":
    main()
