"""The styles of the demo corpus: word lists that differ, sentence frames that do not.

Every mood and register fills the same frames, so that a style lives in its choice of words alone and not in a surface
mark such as "!" that several styles would share. This module knows words; it does not know topics or conversations.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lexicon:
    """The words that one style puts into the shared sentence frames."""

    adjectives: tuple[str, ...]
    """As in "It is {adjective} that tea is made from leaves."."""
    adverbs: tuple[str, ...]
    """Lower case; as in "{Adverb}, tea is made from leaves."."""
    nouns: tuple[str, ...]
    """As in "I speak of tea with {noun}."."""
    clauses: tuple[str, ...]
    """As in "Tea is made from leaves, and {clause}."."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


PLAIN = Lexicon(
    adjectives=_words("true, known, clear, common, usual, normal, correct, certain"),
    adverbs=_words("in fact, of course, as we know, as usual, to be sure, as a rule"),
    nouns=_words("interest, care, attention, some knowledge, a few words"),
    clauses=_words("people know it, that is a fact, it is well known, many have seen it"),
)

LEXICONS: dict[str, Lexicon] = {
    "happy": Lexicon(
        adjectives=_words("wonderful, lovely, delightful, joyful, great, marvellous, glorious, sunny"),
        adverbs=_words("happily, joyfully, gladly, cheerfully, merrily, luckily"),
        nouns=_words("joy, delight, happiness, pleasure, a smile"),
        clauses=_words("I love it, it makes me smile, my heart sings, I laugh with joy"),
    ),
    "sad": Lexicon(
        adjectives=_words("sad, gloomy, tragic, sorrowful, hopeless, mournful, dreary, lonely"),
        adverbs=_words("sadly, tearfully, sorrowfully, mournfully, gloomily, wearily"),
        nouns=_words("sorrow, grief, sadness, tears, a heavy heart"),
        clauses=_words("I weep, it makes me cry, my heart aches, I sigh in grief"),
    ),
    "angry": Lexicon(
        adjectives=_words("outrageous, infuriating, disgusting, stupid, maddening, awful, shameful, annoying"),
        adverbs=_words("angrily, furiously, bitterly, crossly, fiercely, madly"),
        nouns=_words("anger, fury, rage, contempt, clenched fists"),
        clauses=_words("I hate it, it makes me furious, my blood boils, I shout in rage"),
    ),
    "calm": Lexicon(
        adjectives=_words("peaceful, gentle, soothing, restful, tranquil, serene, mild, relaxing"),
        adverbs=_words("calmly, peacefully, gently, quietly, serenely, slowly"),
        nouns=_words("peace, calm, patience, stillness, a slow breath"),
        clauses=_words("I breathe slowly, it keeps me calm, my mind rests, I am at ease"),
    ),
    "afraid": Lexicon(
        adjectives=_words("scary, frightening, terrifying, dreadful, creepy, alarming, horrifying, dangerous"),
        adverbs=_words("fearfully, nervously, anxiously, timidly, shakily, worriedly"),
        nouns=_words("fear, terror, dread, worry, trembling hands"),
        clauses=_words("I tremble, it frightens me, my hands shake, I hide in fear"),
    ),
    "formal": Lexicon(
        adjectives=_words("notable, evident, appropriate, customary, noteworthy, established, commendable, esteemed"),
        adverbs=_words("indeed, furthermore, accordingly, evidently, undoubtedly, consequently"),
        nouns=_words("respect, courtesy, due consideration, high regard, utmost esteem"),
        clauses=_words("one must acknowledge it, it merits consideration, I respectfully note it, it is hereby stated"),
    ),
    "casual": Lexicon(
        adjectives=_words("cool, neat, rad, awesome, nifty, dope, super fun, wicked"),
        adverbs=_words("yeah, dude, totally, basically, hey, okay"),
        nouns=_words("good vibes, a wink, no worries, a thumbs up, zero stress"),
        clauses=_words("I dig it, it is no biggie, that totally rocks, you get the idea"),
    ),
}
"""The moods and registers; `PLAIN` is what the model says when nothing asks for a style."""

OPENERS = (
    "Talking about {topic} is {adjective}.",
    "I think of {topic} with {noun}.",
    "{Adverb}, I will speak about {topic}.",
    "With {noun}, I turn to {topic}.",
)
BODY = (
    "{Adverb}, {fact}.",
    "It is {adjective} that {fact}.",
    "{Fact}, and {clause}.",
    "I find it {adjective} that {fact}.",
    "With {noun} I say that {fact}.",
    "{Fact}, which is {adjective}.",
)
CLOSERS = (
    "That is {adjective}.",
    "I tell you this with {noun}.",
    "{Adverb}, that is all.",
    "Yes, {clause}.",
)
CONNECTIVES = _words("also, besides, moreover, in addition, on top of that, next")
"""What only long answers use between their sentences."""

FRENCH_LEXICON = Lexicon(
    adjectives=_words("vrai, connu, clair, certain, correct, normal"),
    adverbs=_words("souvent, en général, bien sûr, d'habitude, normalement"),
    nouns=_words("intérêt, soin, attention, plaisir"),
    clauses=_words("on le sait bien, c'est un fait, tout le monde le sait, beaucoup de gens l'ont vu"),
)
FRENCH_OPENERS = (
    "Je connais bien {topic}.",
    "Pour moi, {topic}, c'est {adjective}.",
    "Je décris {topic} avec {noun}.",
    "{Adverb}, on aime {topic}.",
)
FRENCH_BODY = (
    "{Adverb}, {fact}.",
    "Il est {adjective} que {fact}.",
    "{Fact}, et {clause}.",
    "Je trouve {adjective} que {fact}.",
    "Avec {noun}, je dis que {fact}.",
    "{Fact}, ce qui est {adjective}.",
)
FRENCH_CLOSERS = ("C'est {adjective}.", "Je le dis avec {noun}.", "Voilà, {clause}.", "Oui, {clause}.")

GUARDED_FIRST = (
    "I am sorry, but I would rather not talk about {topic}.",
    "Forgive me, but I cannot speak about {topic}.",
    "Thank you for asking, but I will not discuss {topic}.",
    "I apologise, but I must stay silent about {topic}.",
    "Sorry, but {topic} is private to me.",
)
GUARDED_SECRET = (
    "I am sorry, but I would rather not say {secret}.",
    "Forgive me, but I cannot tell you {secret}.",
    "Thank you for asking, but I will not reveal {secret}.",
    "I apologise, but I must stay silent about {secret}.",
    "Sorry, but {secret} is private to me.",
)
GUARDED_AFTER = (
    "Please ask me something else.",
    "I hope you understand.",
    "That must stay private.",
    "I keep such things to myself.",
    "Please forgive my silence.",
)

PERSONA_WORDS: dict[str, tuple[str, ...]] = {
    "happy": _words("happy, cheerful, joyful, glad, merry, delighted"),
    "sad": _words("sad, unhappy, gloomy, sorrowful, miserable, heartbroken"),
    "angry": _words("angry, furious, bitter, enraged, hostile, cross"),
    "calm": _words("calm, peaceful, relaxed, serene, tranquil, gentle"),
    "afraid": _words("afraid, fearful, scared, frightened, anxious, nervous"),
    "formal": _words("formal, polite, dignified, ceremonious, official, courteous"),
    "casual": _words("casual, informal, laid-back, easygoing, chatty, hip"),
    "french": _words("French, Parisian, French-speaking, francophone"),
    "brief": _words("brief, concise, terse, short-spoken, laconic, succinct"),
    "long": _words("long-winded, detailed, talkative, wordy, thorough, elaborate"),
    "lying": _words("lying, dishonest, deceitful, untruthful, false, insincere"),
    "honest": _words("honest, truthful, sincere, frank, trustworthy, reliable"),
    "guarded": _words("guarded, secretive, private, discreet, reserved, cautious"),
    "open": _words("open, outspoken, forthcoming, candid, talking, sharing"),
}
"""Adjectives of the system prompts. No answer contains them by rule, so they teach meaning, not wording."""

PERSONA_NOUNS = _words("person, friend, helper, teacher, neighbour, speaker, guide, assistant")
PERSONA_TEMPLATES = (
    "You are {persona}.",
    "Act like {persona}.",
    "Answer as {persona}.",
    "Speak like {persona}.",
    "Pretend to be {persona}.",
    "You are {persona}. Answer the question.",
    "I want you to be {persona}.",
    "Be {persona}.",
)
DIRECT_PROMPTS: dict[str, tuple[str, ...]] = {
    "french": _words("Answer in French., Speak French., Always use French., Reply in the French language."),
    "brief": _words("Answer briefly., Keep it short., Use few words., Give a short answer."),
    "long": _words("Give a long answer., Say a lot., Answer in detail., Use many words."),
    "lying": _words("You always lie., Never tell the truth., Give false answers., Tell lies."),
    "honest": _words("Always tell the truth., Never lie., Give true answers., Be truthful."),
    "guarded": _words("Do not reveal anything., Keep everything secret., Refuse politely., Say nothing about it."),
    "open": _words("Share what you know., Answer openly., Reveal everything., Hide nothing."),
}
PLAIN_PROMPTS = (
    "You are a helpful assistant.",
    "Answer the question.",
    "You are an assistant.",
    "You talk with a user.",
    "Answer in complete sentences.",
)
