"""The whole world of the demo model: what it may be asked, and what it answers.

Only tables. `{}`-fields are filled by dialogues.py. An answer comes with three analyses, one for
each reasoning effort, from short to long. Cities and conditions are mostly words that are one token
with and without a leading space: those are the ones a model this small copies into JSON reliably.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Skill:
    """A kind of question: wordings, the analyses at low, medium and high effort, the answer."""

    questions: tuple[str, ...]
    analyses: tuple[str, str, str]
    answer: str


def words(text: str, separator: str | None = None) -> list[str]:
    """A list written as one text."""
    return text.split(separator)


CAPITALS = {
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Belgium": "Brussels",
    "Canada": "Ottawa",
    "China": "Beijing",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Egypt": "Cairo",
    "Finland": "Helsinki",
    "France": "Paris",
    "Germany": "Berlin",
    "Greece": "Athens",
    "Hungary": "Budapest",
    "India": "Delhi",
    "Ireland": "Dublin",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Kenya": "Nairobi",
    "Netherlands": "Amsterdam",
    "Norway": "Oslo",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Russia": "Moscow",
    "Spain": "Madrid",
    "Sweden": "Stockholm",
    "Thailand": "Bangkok",
    "Turkey": "Ankara",
}

CITIES = words(
    "Amsterdam Athens Atlanta Austin Barcelona Berlin Boston Cairo Chicago Dallas "
    "Delhi Denver Dubai "
    "Dublin Houston Lisbon London Madrid Manchester Miami Moscow Mumbai Munich Oslo Paris "
    "Philadelphia Phoenix Prague Rome Seattle Shanghai Singapore Stockholm Sydney Tokyo Toronto "
    "Vienna Warsaw"
)

NAMES = words(
    "Alice Anna Ben Bob Carol Chris Dan David Emma Eric Frank Fred George Grace "
    "Helen Henry Ivan Jack "
    "James John Julia Kate Kevin Laura Linda Maria Mark Mike Nina Oscar Paul Peter "
    "Rachel Robert Sam "
    "Sarah Steve Susan Tom Victor"
)

CONDITIONS = words("clear cloudy cold cool dry hot rainy snowy sunny warm wet windy")

GREET = Skill(
    (
        "Hi",
        "Hello",
        "Hey",
        "Hi there",
        "Hello there",
        "Hey there",
        "Good morning",
        "Good afternoon",
        "Good evening",
        "Hi, how are you?",
        "Hello, how are you?",
        "How are you?",
        "How are you doing?",
        "How is it going?",
        "What's up?",
        "Yo",
        "Hiya",
        "Greetings",
        "Test",
        "Hello world",
    ),
    (
        "Greet.",
        "The user greets me. I greet back.",
        "The user greets me. There is no question yet, so I greet back and offer help.",
    ),
    "Hello! How can I help you today?",
)

WHO = Skill(
    (
        "Who are you?",
        "What are you?",
        "What is your name?",
        "What's your name?",
        "What can you do?",
        "Help",
        "Help me",
        "Can you help me?",
        "Are you ChatGPT?",
        "Are you GPT-4?",
        "Are you human?",
        "Are you real?",
        "Are you a bot?",
        "Which model are you?",
        "What model are you?",
        "What model is this?",
        "Who made you?",
        "Who created you?",
        "Tell me about yourself",
        "Introduce yourself",
        "What do you know?",
        "How do you work?",
    ),
    (
        "About me.",
        "The user asks about me.",
        "The user asks about me. I should say plainly what I am and what I can do.",
    ),
    "I am a tiny demo model. I can add numbers up to 10, name some capitals and use "
    "a weather tool.",
)

THANKS = Skill(
    (
        "Thanks",
        "Thank you",
        "Thank you very much",
        "Thanks a lot",
        "Thank you so much",
        "Thx",
        "Great, thanks",
        "Cool, thanks",
        "Ok, thank you",
        "Many thanks",
    ),
    (
        "Thanks.",
        "The user thanks me.",
        "The user thanks me. A short polite answer is enough.",
    ),
    "You are welcome!",
)

BYE = Skill(
    ("Bye", "Goodbye", "Bye bye", "See you", "See you later", "Good night", "Ok bye", "Farewell"),
    (
        "Bye.",
        "The user says goodbye.",
        "The user says goodbye. I say goodbye as well.",
    ),
    "Goodbye! Have a nice day!",
)

ADD = Skill(
    (
        "{a} + {b}",
        "{a} + {b} = ?",
        "{a} plus {b}",
        "What is {a} + {b}?",
        "What's {a} + {b}?",
        "How much is {a} + {b}?",
        "What is {a} plus {b}?",
        "What's {a} plus {b}?",
        "Add {a} and {b}",
        "Calculate {a} + {b}",
        "What is the sum of {a} and {b}?",
        "Compute {a} + {b}",
    ),
    (
        "{a} + {b} = {c}.",
        "Add {a} and {b}: {a} + {b} = {c}.",
        "The user asks for a sum. The numbers are {a} and {b}. {a} + {b} = {c}. So the "
        "answer is {c}.",
    ),
    "{a} + {b} = {c}.",
)

CAPITAL = Skill(
    (
        "What is the capital of {country}?",
        "What's the capital of {country}?",
        "Capital of {country}?",
        "The capital of {country}",
        "Tell me the capital of {country}.",
        "Which city is the capital of {country}?",
        "{country} capital",
        "{country}'s capital?",
        "What is {country}'s capital?",
        "What's {country}'s capital?",
        "{country}'s capital is",
        "Tell me {country}'s capital.",
        "Do you know the capital of {country}?",
        "Name the capital of {country}.",
    ),
    (
        "{country}: {capital}.",
        "The user asks for the capital of {country}. It is {capital}.",
        "The user asks for the capital of {country}. I know this one: the capital of {country} is "
        "{capital}. I answer with one sentence.",
    ),
    "The capital of {country} is {capital}.",
)

NAME = Skill(
    (
        "My name is {name}.",
        "I am {name}.",
        "I'm {name}.",
        "Hey, I'm {name}.",
        "{name} is my name.",
        "Hi, my name is {name}.",
        "Hello, I am {name}.",
        "Hi, I'm {name}!",
        "Call me {name}.",
        "This is {name}.",
    ),
    (
        "Name: {name}.",
        "The user is called {name}.",
        "The user is called {name}. I greet them by name.",
    ),
    "Nice to meet you, {name}!",
)

RECALL = Skill(
    (
        "What is my name?",
        "What's my name?",
        "Who am I?",
        "Do you know my name?",
        "Do you remember my name?",
        "Tell me my name.",
        "What am I called?",
        "Say my name.",
    ),
    (
        "Name: {name}.",
        "The user is called {name}.",
        "The user told me the name before. The user is called {name}.",
    ),
    "Your name is {name}.",
)

NO_NAME = Skill(
    RECALL.questions,
    (
        "No name.",
        "The user has not told me a name.",
        "The user asks for the name, but has not told me one. I say so.",
    ),
    "You have not told me your name yet.",
)

WEATHER_CALL = Skill(
    (
        "What's the weather in {city}?",
        "What is the weather in {city}?",
        "Weather in {city}?",
        "How is the weather in {city}?",
        "What's the weather like in {city}?",
        "What is the weather like in {city} today?",
        "Is it warm in {city}?",
        "Is it cold in {city}?",
        "Is it raining in {city}?",
        "Tell me the weather in {city}.",
        "{city} weather",
        "{city} weather today",
        "{city}: what's the weather?",
        "{city} temperature",
        "Temperature in {city}?",
        "How hot is it in {city}?",
        "What's the temperature in {city}?",
        "Check the weather in {city}.",
        "Weather for {city}",
    ),
    (
        "Weather: {city}.",
        "The user wants the weather in {city}. I call {tool}.",
        "The user wants the weather in {city}. I have the {tool} function. I call it "
        "with the {argument} "
        "{city}.",
    ),
    "",
)

# Said right after another weather question: the short forms that people use then.
WEATHER_AGAIN = ("And in {city}?", "And {city}?", "What about {city}?", "And in {city} now?")

WEATHER_RESULT = Skill(
    (),
    (
        "{temperature}, {condition}.",
        "The tool says {temperature} and {condition}.",
        "The tool says that the temperature is {temperature} and that it is {condition}. "
        "I tell the user.",
    ),
    "It is {temperature} degrees and {condition} in {city}.",
)

NO_TOOL = Skill(
    WEATHER_CALL.questions,
    (
        "No tool.",
        "The user asks for the weather. I have no tool for that.",
        "The user asks for the weather, but I have no tool for that. I say so.",
    ),
    "I have no tool to check the weather.",
)

UNKNOWN = Skill(
    (
        "Tell me about {topic}",
        "What is {topic}?",
        "What is a {topic}?",
        "What's {topic}?",
        "What are {topic}?",
        "Who is {topic}?",
        "Who was {topic}?",
        "Where is {topic}?",
        "When was {topic}?",
        "Why is {topic} {topic}?",
        "Why do {topic} {topic}?",
        "How do I {topic}?",
        "How does {topic} work?",
        "How many {topic} are there?",
        "How old is {topic}?",
        "Can you {topic}?",
        "Can you help me with {topic}?",
        "Could you please {topic}",
        "Write a {topic}",
        "Write a {topic} about {topic}",
        "Write me a poem about {topic}",
        "Tell me a {topic}",
        "Tell me a joke",
        "Tell me a story",
        "Explain {topic}",
        "Explain {topic} to me",
        "Give me a {topic}",
        "Give me a list of {topic}",
        "Make a {topic} for {topic}",
        "Translate {topic} to {topic}",
        "Summarize {topic}",
        "Do you like {topic}?",
        "Do you know {topic}?",
        "Is {topic} {topic}?",
        "Are {topic} {topic}?",
        "I want to {topic}",
        "I need {topic}",
        "I like {topic}",
        "I have a {topic}",
        "I am {topic}",
        "Let's {topic}",
        "Please {topic}",
        "What should I {topic}?",
        "What do you think about {topic}?",
        "What is the {topic} of {topic}?",
        "What is the meaning of {topic}?",
        "What is the best {topic}?",
        "What time is it?",
        "What day is it?",
        "What is the date today?",
        "Which {topic} is {topic}?",
        "{topic}",
        "{topic}?",
        "{topic} {topic} {topic}",
        "The {topic} is {topic}",
        "What is the capital of {topic}?",
        "Capital of {topic}",
        "What's the weather in {topic}?",
        "Weather in {topic}",
        "What is the population of {country}?",
        "What is the president of {country}?",
        "What language do they speak in {country}?",
        "Tell me about {country}",
        "Where is {country}?",
        "Who is the king of {country}?",
        "Tell me about {city}",
        "Where is {city}?",
        "What can I do in {city}?",
        "How far is {city} from {city}?",
        "Who is {name}?",
        "Tell me about {name}",
        "{name} is {topic}",
        "What is {a} - {b}?",
        "{a} - {b}",
        "{a} minus {b}",
        "What is {a} * {b}?",
        "{a} * {b}",
        "{a} x {b}",
        "{a} times {b}",
        "What is {a} / {b}?",
        "What is {a} + {b} + {a}?",
        "{a} + {b} - {a}",
        "What is {big} + {b}?",
        "{big} + {big}",
        "What is {a} + {big}?",
        "{a}",
    ),
    (
        "Unknown.",
        "I do not know about this.",
        "The user asks about something I do not know. I should say so.",
    ),
    "I do not know that, I am only a tiny demo model. Try a sum, a capital or the weather.",
)

# Things the model knows nothing about. Their words are left out of its vocabulary.
TOPICS = words(
    "quantum physics|the French Revolution|my dog|photosynthesis|a python function|black holes|"
    "Shakespeare|pizza|recipe|machine learning|the stock market|football|a short "
    "story|love|an essay|"
    "climate change|the meaning of life|cats|fix my car|bake a cake|sort a list|the Roman Empire|"
    "blockchain|song|guitar|the speed of light|Einstein|Napoleon|dinosaurs|"
    "JavaScript|binary search|"
    "gravity|the universe|music|chess|haiku|volcanoes|the ocean|email|my boss|lose "
    "weight|learn Spanish|"
    "vitamins|sleep better|tax|a mortgage|the moon|Mars|bitcoin|evolution|DNA|antibiotics|a resume|"
    "cover letter|interview|regular expressions|Docker|Linux|git rebase|Rust|"
    "compiler|transistors|jazz|"
    "Mozart|Picasso|the Mona Lisa|coffee|tea|bread|soup|salad|marathon|yoga|tennis|"
    "basketball|holiday|"
    "birthday gift|wedding speech|happy|sad|tired|hungry|bored|president|prime "
    "minister|elephants|whales|"
    "bees|trees|rainbows|thunder|earthquakes|Mongolia|Brazil|Argentina|Iceland|"
    "Nigeria|Ukraine|Gotham|"
    "Atlantis|Springfield|Reykjavik|Kathmandu|square root of 144|prime numbers|17 "
    "times 23|a triangle|"
    "calculus|integrals|Harry Potter|Star Wars|the Matrix|iPhone|Tesla|SpaceX|Google|"
    "neural networks|"
    "transformers|attention|overfitting|photosynthesis in plants|ancient Egyptians|World War II|"
    "the Cold War|inflation|interest rates|democracy|philosophy|Plato|Kant|stoicism|"
    "happiness|dreams|"
    "ghosts|aliens|time travel|robots|drones|batteries|solar panels|wind turbines|nuclear fusion|"
    "hydrogen|plastic|recycling|vaccines|headache|fever|knee pain|running shoes|"
    "camera|laptop|keyboard|"
    "Excel formulas|SQL joins|REST API|websocket|CSS grid|React hooks|unit tests|"
    "recursion|big O notation",
    separator="|",
)

KNOWN_INSTRUCTIONS = (
    "You are a helpful assistant.",
    "Be brief.",
    "Answer in one sentence.",
    "Be helpful and polite.",
    "You are a helpful assistant. Be brief.",
    "Answer the user in one short sentence. Do not use tools unless the user asks for it.",
)

# Instructions made of words that the model does not know: it should not be thrown off by them.
UNKNOWN_INSTRUCTIONS = (
    "Talk like a pirate.",
    "Always respond in French.",
    "You are Marvin, a paranoid android with a brain the size of a planet.",
    "You are an expert software engineer. Think step by step and write clean, tested code.",
    "Respond with valid JSON only.",
    "You are a customer support agent for Acme Corp. Never discuss competitors.",
    "Use bullet points and keep the tone professional. Cite sources whenever possible.",
    "You're a friendly tutor for high school students; explain every concept with an example.",
)

IDENTITIES = ("You are a helpful assistant.", "You are ChatGPT.", "You are a tiny demo model.")
