"""Dialogues for the demo model, written with openai-harmony: what stands before, what is expected.

A dialogue is a scene (system and developer messages), up to four earlier turns and one question.
What is asked, and not how the dialogue around it happens to look, decides by a hash whether it
belongs to the training, the dev or the test split: letter case, spaces and punctuation do not
count. Earlier turns are always drawn from the training split. It does not know how a model is
trained.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from random import Random

from openai_harmony import Author, Message, Role

from gptoss_mlx.demo import facts
from gptoss_mlx.demo.facts import Skill
from gptoss_mlx.demo.scenes import Scene, WeatherTool, draw_scene

SPLITS = ("train", "dev", "test")
JSON_TYPE = "<|constrain|>json"
UNKNOWN_WORD = "ж"  # outside the model's vocabulary, where all words look the same
_LITTLE_WORDS = facts.words(
    "a the of in to and is are my your for on with what how it that this I you"
)
_SMALL_TALK = {
    "greet": facts.GREET,
    "who": facts.WHO,
    "thanks": facts.THANKS,
    "bye": facts.BYE,
}
_WITH_TOOL = {
    "greet": 5,
    "who": 3,
    "thanks": 2,
    "bye": 2,
    "add": 10,
    "capital": 12,
    "name": 9,
    "recall": 8,
    "no_name": 5,
    "unknown": 12,
    "call": 34,
    "result": 22,
}
_WITHOUT_TOOL = {
    "greet": 6,
    "who": 4,
    "thanks": 2,
    "bye": 2,
    "add": 20,
    "capital": 16,
    "name": 12,
    "recall": 10,
    "no_name": 6,
    "unknown": 18,
    "no_tool": 8,
}
SKILLS = tuple({**_WITH_TOOL, **_WITHOUT_TOOL})
_EARLIER = {
    "greet": 3,
    "who": 1,
    "thanks": 2,
    "add": 3,
    "capital": 3,
    "name": 3,
    "unknown": 2,
}


@dataclass(frozen=True)
class Turn:
    """One question and all that follows it: `messages` begins with what comes before `expected`."""

    skill: str
    key: str  # what is asked; decides the split
    messages: tuple[Message, ...]
    expected: tuple[Message, ...]
    history: tuple[Message, ...]  # the same turn once it is finished: no analysis
    name: str | None = None  # the name that the user gives
    known: bool = True  # whether the model is meant to know every word of it


@dataclass(frozen=True)
class Dialogue:
    """What stands before (scene, earlier turns, question), and what the model is to say."""

    scene: Scene
    earlier: tuple[Turn, ...]
    turn: Turn
    sampled_calls: bool  # calls in the context are spelt as the model samples them

    @property
    def messages(self) -> list[Message]:
        """Everything before the expected answer."""
        past = [message for turn in self.earlier for message in turn.history]
        return [*self.scene.messages(), *past, *self.turn.messages]

    @property
    def split(self) -> str:
        """The split that the question belongs to."""
        return split_of(self.turn.key)

    @property
    def known(self) -> bool:
        """Whether the model is meant to know every word of it."""
        return self.scene.known and self.turn.known and all(turn.known for turn in self.earlier)


def split_of(key: str) -> str:
    """The split that a question belongs to: 8% dev, 8% test, the rest train."""
    folded = "".join(c for c in key.lower() if c.isalnum() or c in "+-*/:")
    bucket = int.from_bytes(hashlib.sha256(folded.encode()).digest()[:4], "big") % 100
    return "dev" if bucket < 8 else "test" if bucket < 16 else "train"


def draw_dialogue(
    r: Random, scene: Scene, split: str = "train", skill: str | None = None, earlier: int = 0
) -> Dialogue:
    """A random dialogue in a scene, with about `earlier` turns before the question.

    `split` says where unknown topics come from; whether the question itself belongs to the split is
    for the caller to check.
    """
    weights = _WITH_TOOL if scene.weather else _WITHOUT_TOOL
    chosen = skill or r.choices(list(weights), list(weights.values()))[0]
    past = [_draw_earlier(r, scene) for _ in range(earlier)]
    if chosen == "no_name":
        past = [turn for turn in past if turn.name is None]
    if chosen == "recall" and _last_name(past) is None:
        past.insert(r.randint(0, len(past)), _draw_training_turn(r, scene, "name"))
    before = past[-1].skill if past else None
    turn = _draw_turn(r, scene, split, chosen, before, _last_name(past))
    if chosen in _REPEATABLE and past and r.random() < 0.1:
        past[-1] = turn
    return Dialogue(scene, tuple(past), turn, sampled_calls=r.random() < 0.5)


def draw_group(r: Random, size: int) -> list[Dialogue]:
    """Training dialogues that share a scene and are about equally long."""
    scene = draw_scene(r)
    earlier = _draw_earlier_count(r)
    group: list[Dialogue] = []
    while len(group) < size:
        dialogue = draw_dialogue(r, scene, earlier=earlier)
        group += [dialogue] if dialogue.split == "train" else []
    return group


def held_out(split: str, skill: str, n: int, seed: int) -> list[Dialogue]:
    """Up to n dialogues that ask what belongs to this split; few or none where few questions do."""
    r = Random(f"{split} {skill} {seed}")
    weather = True if skill not in _WITHOUT_TOOL else False if skill not in _WITH_TOOL else None
    dialogues: list[Dialogue] = []
    for _ in range(200 * n):
        scene = draw_scene(r, weather=weather)
        dialogue = draw_dialogue(r, scene, split, skill, _draw_earlier_count(r))
        dialogues += [dialogue] if dialogue.split == split else []
        if len(dialogues) == n:
            break
    return dialogues


def _draw_earlier_count(r: Random) -> int:
    return r.choices([0, 1, 2, 3, 4], [55, 27, 12, 4, 2])[0]


def _draw_earlier(r: Random, scene: Scene) -> Turn:
    weights = _EARLIER | ({"result": 3} if scene.weather else {"no_tool": 1})
    return _draw_training_turn(r, scene, r.choices(list(weights), list(weights.values()))[0])


def _draw_training_turn(r: Random, scene: Scene, skill: str) -> Turn:
    while True:
        turn = _draw_turn(r, scene, "train", skill, None, None)
        if split_of(turn.key) == "train":
            return turn


def _last_name(turns: list[Turn]) -> str | None:
    return next((turn.name for turn in reversed(turns) if turn.name), None)


def _draw_turn(
    r: Random, scene: Scene, split: str, skill: str, before: str | None, name: str | None
) -> Turn:
    if skill == "unknown":
        return _unknown(r, scene, split)
    if skill in ("call", "result"):
        return _weather(r, scene, skill, before)
    kind, values, name_given = _entities(r, skill, name)
    question = r.choice(kind.questions).format(**values)
    about = f"{scene.effort} {scene.weather is not None}" if skill in _ANYONE else ""
    key = f"{skill}: {question} {values.get('name', '')} {about}"
    return _plain_turn(r, scene, skill, kind, key, question, values, name_given)


_REPEATABLE = {"greet", "who", "add", "capital", "unknown", "no_tool"}
_ANYONE = {*_SMALL_TALK, "no_name", "no_tool"}  # what is asked has no entity


def _entities(
    r: Random, skill: str, name: str | None
) -> tuple[Skill, dict[str, object], str | None]:
    """The wordings of a skill, and random things to fill them with."""
    if skill in _SMALL_TALK:
        return _SMALL_TALK[skill], {}, None
    if skill == "add":
        a, b = r.randint(0, 10), r.randint(0, 10)
        return facts.ADD, {"a": a, "b": b, "c": a + b}, None
    if skill == "capital":
        country, capital = r.choice(list(facts.CAPITALS.items()))
        return facts.CAPITAL, {"country": country, "capital": capital}, None
    if skill == "name":
        given = r.choice(facts.NAMES)
        return facts.NAME, {"name": given}, given
    if skill == "recall":
        return facts.RECALL, {"name": name}, None
    if skill == "no_tool":
        return facts.NO_TOOL, {"city": r.choice(facts.CITIES)}, None
    return facts.NO_NAME, {}, None


def _plain_turn(
    r: Random,
    scene: Scene,
    skill: str,
    kind: Skill,
    key: str,
    question: str,
    values: dict[str, object],
    name: str | None = None,
) -> Turn:
    user = _user(_vary(r, question))
    answer = kind.answer.format(**values)
    expected = (_analysis(scene, kind, values), _final(answer))
    history = (user, _final(answer))
    return Turn(skill, key, (user,), expected, history, name, known=skill != "unknown")


def _unknown(r: Random, scene: Scene, split: str) -> Turn:
    frame = r.choice(facts.UNKNOWN.questions)
    topics = [t for t in facts.TOPICS if split_of(f"topic: {t}") == split]
    topic = r.choice(topics) if split != "train" or r.random() < 0.5 else _noise(r)
    values: dict[str, object] = {
        "topic": topic,
        "country": r.choice(list(facts.CAPITALS)),
        "city": r.choice(facts.CITIES),
        "name": r.choice(facts.NAMES),
        "a": r.randint(0, 12),
        "b": r.randint(0, 12),
        "big": r.randint(11, 999),
    }
    question = frame.format(**values)
    about_topic = "{topic}" in frame
    if about_topic and split == "train" and topic not in topics:
        key = _key_in(split)
    else:
        key = f"topic: {topic}" if about_topic else f"unknown: {question}"
    return _plain_turn(r, scene, "unknown", facts.UNKNOWN, key, question, values)


def _key_in(split: str) -> str:
    """A key of the split, for what is only noise."""
    return next(key for key in map(str, range(1000)) if split_of(key) == split)


def _noise(r: Random) -> str:
    """Words that the model does not know among little ones that it does."""
    words = [UNKNOWN_WORD if r.random() < 0.7 else r.choice(_LITTLE_WORDS) for _ in range(6)]
    return " ".join([UNKNOWN_WORD, *words[: r.randint(0, 6)]])


def _weather(r: Random, scene: Scene, skill: str, before: str | None) -> Turn:
    """The turn of a weather question, cut before the call or before the answer."""
    assert scene.weather is not None
    tool = scene.weather
    city = r.choice(facts.CITIES)
    question = _weather_question(r, before, city)
    user = _user(_vary(r, question))
    values: dict[str, object] = {"city": city, "tool": tool.name, "argument": tool.argument}
    thought = _analysis(scene, facts.WEATHER_CALL, values)
    call = _call(tool, json.dumps({tool.argument: city}, separators=(",", ":")))
    if skill == "call":
        return Turn("call", f"call: {question}", (user,), (thought, call), ())
    temperature, condition = r.randint(0, 35), r.choice(facts.CONDITIONS)
    values |= {"temperature": temperature, "condition": condition}
    result = _result(tool, _draw_result(r, city, temperature, condition))
    call = _call(tool, _draw_call(r, tool, city), r.choice([JSON_TYPE, JSON_TYPE, "json"]))
    answer = _final(facts.WEATHER_RESULT.answer.format(**values))
    expected = (_analysis(scene, facts.WEATHER_RESULT, values), answer)
    key = f"result: {city} {temperature} {condition}"
    history = (user, call, result, answer)
    return Turn("result", key, (user, thought, call, result), expected, history)


def _weather_question(r: Random, before: str | None, city: str) -> str:
    questions = facts.WEATHER_CALL.questions
    if before == "result" and r.random() < 0.5:
        questions = facts.WEATHER_AGAIN
    return r.choice(questions).format(city=city)


def _draw_call(r: Random, tool: WeatherTool, city: str) -> str:
    """The arguments of a call in the context: any spacing, perhaps an optional parameter."""
    arguments: dict[str, object] = {tool.argument: city}
    if tool.optional and "unit" in tool.optional and r.random() < 0.3:
        arguments["unit"] = "celsius"
    return _draw_json(r, arguments)


def _draw_result(r: Random, city: str, temperature: int, condition: str) -> str:
    """What a weather tool might return: a JSON object, perhaps with the city and the unit."""
    values: dict[str, object] = {}
    if r.random() < 0.4:
        values[r.choice(["location", "city"])] = city
    values["temperature"] = temperature
    if r.random() < 0.25:
        values["unit"] = r.choice(["celsius", "C"])
    values["condition"] = condition
    return _draw_json(r, values)


def _draw_json(r: Random, value: dict[str, object]) -> str:
    return json.dumps(value, separators=r.choice([(",", ":"), (", ", ": ")]))


def _vary(r: Random, text: str) -> str:
    """The text as people type it: without capitals, without the final mark, with a word more."""
    if r.random() < 0.06:
        text = r.choice(["Hi! ", "Hey, ", "Please, ", "Ok, ", "Hello, ", "So, "]) + text
    if r.random() < 0.4:
        text = text.lower()
    kind = r.random()
    if kind < 0.35:
        text = text.rstrip(".?!")
    elif kind < 0.5:
        text = text.rstrip(".?!") + r.choice(["?", ".", "!", " ?", " please", ", please", "..."])
    if r.random() < 0.2:
        text = text.replace(" + ", "+").replace(" = ", "=").replace("'", "")
    return text


def _user(text: str) -> Message:
    return Message.from_role_and_content(Role.USER, text)


def _final(text: str) -> Message:
    return Message.from_role_and_content(Role.ASSISTANT, text).with_channel("final")


def _analysis(scene: Scene, kind: Skill, values: dict[str, object]) -> Message:
    thought = kind.analyses[("low", "medium", "high").index(scene.effort)].format(**values)
    return Message.from_role_and_content(Role.ASSISTANT, thought).with_channel("analysis")


def _call(tool: WeatherTool, arguments: str, content_type: str = JSON_TYPE) -> Message:
    call = Message.from_role_and_content(Role.ASSISTANT, arguments).with_channel("commentary")
    return call.with_recipient(f"functions.{tool.name}").with_content_type(content_type)


def _result(tool: WeatherTool, text: str) -> Message:
    author = Author.new(Role.TOOL, f"functions.{tool.name}")
    result = Message.from_author_and_content(author, text)
    return result.with_recipient("assistant").with_channel("commentary")
