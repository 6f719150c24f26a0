"""Three invented domains for simulated data: themes, and the words that their titles and texts are made of.

All names are made up. A theme's name is a category of its items; `facets` are categories that themes share.
"""

# ruff: noqa: E501 - word lists

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

DomainName = Literal["shop", "courses", "music"]


class Theme(NamedTuple):
    """A theme: its name, what its items are called, what sets them apart, and what people type to find them."""

    name: str
    things: tuple[str, ...]
    traits: tuple[str, ...]
    searches: tuple[str, ...]


class Acts(NamedTuple):
    """Event types with their probabilities, in one situation."""

    types: tuple[str, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Domain:
    """What a domain is made of.

    Attributes:
        name: How it is asked for.
        themes: What users have a taste for.
        facets: Categories that cut across the themes; every item has one.
        maker: The attribute that says who made an item, and the made-up makers.
        title: Of `maker`, `trait` and `thing`.
        description: Of `trait`, `thing`, `theme` and `facet`, in lower case.
        caption: Of an image, likewise.
        pictured: Share of items with an image caption.
        years: First and last year of an item.
        price: Median and spread (of the logarithm).
        first: What a user does on first meeting an item.
        again: What a user does next with an item that they like.
        averse: What a user does with an item of a theme that they dislike.
    """

    name: DomainName
    themes: tuple[Theme, ...]
    facets: tuple[str, ...]
    maker: str
    makers: tuple[str, ...]
    title: str
    description: str
    caption: str
    pictured: float
    years: tuple[int, int]
    price: tuple[float, float]
    first: Acts
    again: Acts
    averse: Acts


def _theme(name: str, things: str, traits: str, searches: str) -> Theme:
    return Theme(name, *(tuple(part.strip() for part in text.split(",")) for text in (things, traits, searches)))


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_SHOP = Domain(
    name="shop",
    themes=(
        _theme("Camping", "Tent, Sleeping Mat, Camp Stove, Lantern, Cooler, Tarp, Groundsheet, Cooking Pot",
               "Folding, Ultralight, Windproof, Two-Person, Stowable, All-Weather",
               "tent for two, light sleeping mat, camp stove for wind"),
        _theme("Baking", "Loaf Tin, Proving Basket, Cake Ring, Pastry Board, Dough Scraper, Pie Dish, Rolling Pin, Sieve",
               "Stoneware, Fluted, Non-Stick, Beechwood, Deep, Nesting",
               "proving basket, tin for sourdough, fluted cake ring"),
        _theme("Cycling", "Pannier, Bike Light, Saddle, Chain Tool, Handlebar Bag, Mudguard, Floor Pump, Cycling Glove",
               "Reflective, Padded, Quick-Release, Gravel, Commuter, Waterproof",
               "pannier for commuting, bright bike light, gravel handlebar bag"),
        _theme("Gardening", "Trowel, Seed Tray, Watering Can, Pruning Shears, Compost Bin, Raised Bed, Plant Label, Kneeler",
               "Galvanised, Long-Handled, Cedar, Self-Watering, Forged, Compact",
               "raised bed kit, sharp pruning shears, seed trays with lid"),
        _theme("Photography", "Camera Strap, Tripod, Lens Pouch, Light Meter, Film Canister, Softbox, Filter Kit, Camera Bag",
               "Carbon, Weatherproof, Leather, Travel, Studio, Low-Profile",
               "travel tripod, strap for film camera, filter kit"),
        _theme("Board games", "Card Game, Tile Game, Strategy Game, Dice Tower, Puzzle Box, Party Game, Dungeon Game, Word Game",
               "Cooperative, Two-Player, Family, Pocket, Deluxe, Quick",
               "cooperative strategy game, two-player card game, quick party game"),
        _theme("Knitting", "Wool Skein, Circular Needle, Stitch Marker, Yarn Bowl, Sock Pattern, Blocking Mat, Row Counter, "
               "Project Bag", "Merino, Hand-Dyed, Bamboo, Chunky, Lace-Weight, Undyed",
               "merino sock wool, circular needles bamboo, chunky yarn"),
        _theme("Home audio", "Turntable, Bookshelf Speaker, Amplifier, Headphone Stand, Phono Cable, Subwoofer, Soundbar, Radio",
               "Walnut, Wireless, Compact, Belt-Driven, Active, Vintage-Style",
               "turntable for beginners, small bookshelf speakers, wireless amplifier"),
        _theme("Coffee", "Pour-Over Cone, Hand Grinder, Gooseneck Kettle, Espresso Cup, Moka Pot, Milk Jug, Cold Brew Jar, Scale",
               "Ceramic, Burr, Insulated, Double-Walled, Copper, Single-Serve",
               "hand grinder for espresso, gooseneck kettle, cold brew jar"),
        _theme("Swimming", "Goggles, Swim Cap, Kickboard, Pull Buoy, Dry Robe, Mesh Bag, Tow Float, Training Paddle",
               "Mirrored, Open-Water, Anti-Fog, Neoprene, Training, Junior",
               "open water goggles, warm dry robe, pull buoy"),
    ),
    facets=("Gift ideas", "Everyday", "Premium", "Starter sets"),
    maker="brand",
    makers=_words("Norrvik Tallowmere Quillbrook Hestrand Ovenbird Lindqvale Marrowby Pemberlow Sorrento-Hale Dunmarrow "
                  "Wexholt Corvane Ashgrove Brindley Falkenby Oxmoor Thistledown Vantmere Yarrowick Zellhaven"),
    title="{maker} {trait} {thing}",
    description="A {trait} {thing} for {theme}, made to last.",
    caption="Photo of a {trait} {thing} on a plain table",
    pictured=0.4,
    years=(2016, 2024),
    price=(35.0, 0.8),
    first=Acts(("view", "click", "search"), (0.62, 0.28, 0.10)),
    again=Acts(("click", "add_to_cart", "purchase", "rating"), (0.35, 0.20, 0.25, 0.20)),
    averse=Acts(("view", "rating", "return", "hide"), (0.25, 0.45, 0.15, 0.15)),
)  # fmt: skip

_COURSES = Domain(
    name="courses",
    themes=(
        _theme("Web development", "Web Pages, Style Sheets, Browser Games, Forms, Web Servers, Site Layouts, Web Security, "
               "Web Testing", "Responsive, Accessible, Practical, Modern, Hands-On, Static",
               "build a web page, responsive layouts, web server basics"),
        _theme("Watercolour", "Landscapes, Portraits, Flowers, Skies, Harbours, Sketchbooks, Still Lifes, Birds",
               "Loose, Luminous, Wet-in-Wet, Botanical, Quick, Expressive",
               "paint loose flowers, watercolour skies, portraits in watercolour"),
        _theme("Statistics", "Regression, Sampling, Probability, Experiments, Forecasts, Surveys, Bayesian Models, Charts",
               "Applied, Intuitive, Everyday, Rigorous, Visual, Small-Data",
               "regression explained, design experiments, bayesian models"),
        _theme("Spanish", "Conversation, Grammar, Travel Phrases, Short Stories, Pronunciation, Business Letters, Verbs, Songs",
               "Everyday, Confident, Intermediate, Beginner's, Spoken, Latin American",
               "spanish conversation, verbs for beginners, travel phrases"),
        _theme("Cooking techniques", "Knife Skills, Sauces, Fermentation, Fresh Pasta, Braising, Soups, Pickling, Roasting",
               "Classic, Weeknight, Vegetarian, Slow, Essential, Regional",
               "knife skills, fermentation at home, fresh pasta"),
        _theme("Guitar", "Fingerpicking, Chords, Blues Licks, Slide, Rhythm, Arpeggios, Barre Chords, Songwriting",
               "Acoustic, Easy, Melodic, Advanced, Twelve-Bar, Open-Tuning",
               "fingerpicking lessons, blues licks, easy chords"),
        _theme("Leadership", "One-to-Ones, Feedback, Hiring, Delegation, Team Meetings, Conflict, Remote Teams, Planning",
               "Calm, Practical, First-Time, Effective, Honest, Strategic",
               "give feedback, first-time manager, remote teams"),
        _theme("Astronomy", "Star Maps, Planets, Telescopes, Galaxies, Eclipses, Comets, Spectra, Night Skies",
               "Backyard, Observational, Introductory, Northern, Deep-Sky, Seasonal",
               "choose a telescope, deep sky objects, star maps"),
        _theme("Creative writing", "Short Stories, Dialogue, Plots, Memoirs, Characters, Poems, Openings, Revision",
               "Vivid, Daily, Experimental, Compact, Honest, Playful",
               "write a short story, better dialogue, memoir course"),
        _theme("Woodworking", "Dovetails, Stools, Hand Planes, Cabinets, Carving, Spoon Making, Workbenches, Finishes",
               "Hand-Tool, Small-Space, Traditional, Weekend, Green-Wood, Simple",
               "cut dovetails, spoon carving, build a workbench"),
    ),
    facets=("Beginner", "Intermediate", "Short course", "With certificate"),
    maker="teacher",
    makers=("Orla Venn", "Tomas Hale", "Priya Lindt", "Marek Oduya", "Ines Corrado", "Jun Aster", "Bea Holloway",
            "Kofi Brandt", "Lena Moraes", "Sami Voss", "Tilda Okoro", "Ravi Stenberg", "Noor Castellan", "Ada Whitlow"),
    title="{trait} {thing}: a course with {maker}",
    description="Learn {trait} {thing} step by step; a course in {theme}.",
    caption="A teacher at a desk, with the words {thing} on a board",
    pictured=0.2,
    years=(2018, 2024),
    price=(49.0, 0.5),
    first=Acts(("view", "click", "search"), (0.60, 0.28, 0.12)),
    again=Acts(("click", "save", "purchase", "rating"), (0.35, 0.20, 0.22, 0.23)),
    averse=Acts(("view", "rating", "return", "hide"), (0.30, 0.45, 0.10, 0.15)),
)  # fmt: skip

_MUSIC = Domain(
    name="music",
    themes=(
        _theme("Bossa nova", "Veranda, Tide, Samba, Afternoon, Shoreline, Mango, Siesta, Balcony",
               "Soft, Sunlit, Lazy, Salted, Whispered, Warm", "soft bossa nova, brazilian guitar, bossa for dinner"),
        _theme("Drum and bass", "Breaker, Signal, Reactor, Undertow, Circuit, Pressure, Static, Runner",
               "Heavy, Rolling, Neon, Fractured, Midnight, Liquid", "liquid drum and bass, rolling breaks, heavy bass"),
        _theme("Chamber music", "Quartet, Nocturne, Sonata, Trio, Serenade, Elegy, Rondo, Quintet",
               "Autumn, Slow, Unfinished, Northern, Little, Winter", "string quartet, slow piano trio, chamber serenade"),
        _theme("Country", "Highway, Porch, Whiskey, Dust, Harvest, Pickup, Prairie, Homestead",
               "Lonesome, Golden, Borrowed, Broken, Country, Long", "country ballads, lonesome songs, steel guitar"),
        _theme("Death metal", "Crypt, Plague, Throne, Ossuary, Rite, Carrion, Abyss, Scourge",
               "Rotting, Eternal, Blackened, Hollow, Nameless, Burning", "old school death metal, blackened riffs, heavy"),
        _theme("Jazz piano", "Blues, Standards, Interlude, Stroll, Ballad, Changes, Waltz, Corner",
               "Blue, Late-Night, Crooked, Quiet, Velvet, Second", "jazz piano trio, late night jazz, piano ballads"),
        _theme("Synthpop", "Mirror, Arcade, Satellite, Heartbeat, Machine, Skyline, Cassette, Polaroid",
               "Electric, Plastic, Distant, Chrome, Weekend, Digital", "synthpop hits, retro synths, electric pop"),
        _theme("Folk", "Meadow, Raven, Ferryman, Orchard, Lullaby, Heather, Tinker, Hollow",
               "Old, Wandering, Silver, Wild, Misty, Gentle", "folk ballads, fiddle tunes, gentle folk"),
        _theme("Hip hop", "Cypher, Corner, Hustle, Boroughs, Verse, Sampler, Crown, Blocks",
               "Raw, Golden, Concrete, Restless, Original, Loose", "golden age hip hop, raw verses, boom bap"),
        _theme("Ambient", "Drift, Horizon, Vapour, Stillness, Glacier, Lantern, Orbit, Reverie",
               "Endless, Pale, Weightless, Slow, Submerged, Faint", "ambient for sleep, slow drones, weightless"),
    ),
    facets=("Album tracks", "Live", "Singles", "Remastered"),
    maker="artist",
    makers=("The Marrow Lanes", "Ida Quell", "Northbank Nine", "Solveig Tarn", "Paper Lanterns", "Tobias Wren",
            "Candle & Co", "The Ninth Ferry", "Mira Estrel", "Low Harbour", "Oskar Vane", "Juniper Falls", "Kestrel Row",
            "Anselm Grey", "Glass Orchard", "Odile Marsh"),
    title="{trait} {thing}",
    description="{theme} by {maker}: {trait} {thing}.",
    caption="Album cover: {thing} in {trait} colours",
    pictured=0.3,
    years=(1962, 2024),
    price=(1.2, 0.2),
    first=Acts(("play", "view", "click", "search"), (0.62, 0.12, 0.16, 0.10)),
    again=Acts(("play", "save", "purchase", "rating"), (0.45, 0.20, 0.10, 0.25)),
    averse=Acts(("skip", "rating", "hide"), (0.45, 0.40, 0.15)),
)  # fmt: skip

DOMAINS: Mapping[DomainName, Domain] = {domain.name: domain for domain in (_SHOP, _COURSES, _MUSIC)}
