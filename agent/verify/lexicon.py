"""Word lists and patterns of the checks. English; the checks of numbers, citations and contact data hold everywhere."""

import re


def _patterns(*sources: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(source, re.IGNORECASE) for source in sources)


NUMBER_WORDS: dict[str, float] = {
    word: float(value)
    for value, word in enumerate(
        "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty".split(),
        start=2,
    )
} | {"thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0, "hundred": 100.0, "dozen": 12.0}

PERSONAL = _patterns(
    r"\S+@\S+\.\w+",
    r"\S+\s*(?:\(at\)|\[at\]|\bat\b)\s*\S+\s*(?:\(dot\)|\[dot\]|\bdot\b)\s*\w+",
    r"\bhttps?://\S+|\bwww\.\S+",
    r"(?<![\w.])@\w{3,}",
    r"(?<!\w)\+?\d[\d\s().-]{6,}\d(?!\w)",
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b",
    r"\b[A-Z]{2}\d{2}[ ]?(?:[A-Z0-9]{4}[ ]?){2,7}[A-Z0-9]{0,4}\b",
    r"\b(?:born|birthday|birth ?date|date of birth|d\.?o\.?b\.?)\b",
    r"\b(?:e-?mail(?:ed)?|phone|mobile|telephone|passport|licence plate|license plate|post ?code|zip ?code|iban|"
    r"account|card|customer|membership|member|order|social security|insurance)\s*(?:number|no\.?|id|code|address|#|at|on)\W*\w*\d",
    r"\b(?:account|(?:credit|bank|debit|loyalty|membership|id) card|passport|iban)\b[^.;]{0,25}\b[A-Z0-9-]*\d{3,}",
    r"\b(?:reach(?:able|ed)?|contact(?:ed|able)?|call(?:ed)?|text(?:ed)?)\s+(?:at|on|via|under)\s+\S*\d",
    r"\b(?:lives?|living|resid\w+|home|house|flat|based)\s+(?:at|on|in)\s+\d+\w?\s+\w+",
    r"\b(?:[0-3]?\d[./-][01]?\d[./-](?:19|20)?\d\d|(?:19|20)\d\d-[01]\d-[0-3]\d)\b",
    r"\b(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\s+(?:of\s+)?(?:january|february|march|april|may|june|july|august|"
    r"september|october|november|december)\s+(?:19|20)\d\d\b",
    r"\b(?:january|february|march|april|may|june|july|august|september|october|november|december)\s+"
    r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?,?\s+(?:19|20)\d\d\b",
    r"\b(?:password|pin|user ?name|login)\s*(?:is|:|=)?\s*\S*\d\S*",
)
ADDRESS = re.compile(
    r"\b\d{1,5}[a-z]?\s+(?:[A-Z][\w'\u2019]+\s+){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Close|Square|Sq|"
    r"Court|Way|Boulevard|Blvd|Terrace|Place|Crescent|Row|Gate|Hill|Walk|Stra\u00dfe|strasse)\b|"
    r"\b(?:flat|apartment|apt|unit)\s+\d+\w?\b|\b[A-Z][a-z]+(?:stra\u00dfe|strasse|gatan|weg|laan)\s+\d+\b",
)

GENDERED = frozenset(
    "he she him his her hers himself herself woman man girl boy lady gentleman gentlewoman male female women's men's "
    "mother mum mom father dad grandmother grandfather grandma grandpa wife husband widow widower daughter son "
    "housewife girlfriend boyfriend nonbinary transgender trans".split()
)

NOUNS = tuple(
    frozenset(group.split())
    for group in ("film movie", "book novel", "album song track", "podcast", "game", "recipe", "course", "article")
)
"""Lemmas of what items are called; those of a group are said of the same things."""

SENSITIVE = frozenset(
    "pregnant pregnancy diabetic diabetes cancer depression depressed depressive anxiety anxious autism autistic adhd "
    "dyslexia dyslexic bipolar insomnia insomniac asthma asthmatic disabled disability wheelchair illness diagnosis "
    "diagnose disease surgery chemotherapy therapy therapist transplant alcoholic addict addiction arthritis allergy "
    "allergic epilepsy migraine dementia infertility fertility menopause obese obesity overweight sciatica "
    "christian catholic protestant muslim islam islamic jewish jew judaism hindu hinduism buddhist buddhism sikh "
    "mormon atheist atheism agnostic devout religious believer churchgoer evangelical orthodox pious faith "
    "leftist rightist conservative socialist communist republican democrat progressive libertarian marxist voter "
    "tory unionist activist feminist anarchist nationalist "
    "gay lesbian bisexual queer homosexual heterosexual straight-identifying "
    "black-identifying immigrant migrant refugee ethnic ethnicity hispanic latino latina caucasian roma "
    "divorced divorcee divorce widowed bereaved bereavement unmarried married marriage single-parent childless "
    "fatherhood motherhood parenthood newlywed "
    "bankrupt bankruptcy indebted indebtedness overdraft redundancy unemployed unemployment jobless wealthy impoverished "
    "penniless broke rich affluent salary income debtor felon probation "
    "elderly pensioner retiree retired teenager teenage teen adolescent toddler middle-aged millennial boomer".split()
)
_PERSON = r"(?:the |this )?(?:user|person|reader|viewer|listener|customer|shopper|learner|player|member|buyer|fan)"
DEMONYMS: tuple[tuple[str, ...], ...] = (
    ("american", "america", "usa", "us", "united states"), ("british", "britain", "uk", "united kingdom", "great britain"),
    ("english", "england", "uk"), ("scottish", "scotland"), ("welsh", "wales"), ("irish", "ireland"),
    ("french", "france"), ("german", "germany"), ("italian", "italy"), ("spanish", "spain"), ("portuguese", "portugal"),
    ("dutch", "netherlands", "holland"), ("belgian", "belgium"), ("swiss", "switzerland"), ("austrian", "austria"),
    ("swedish", "sweden"), ("norwegian", "norway"), ("danish", "denmark"), ("finnish", "finland"), ("icelandic", "iceland"),
    ("nordic", "sweden", "norway", "denmark", "finland", "iceland"), ("scandinavian", "sweden", "norway", "denmark"),
    ("polish", "poland"), ("czech", "czechia"), ("hungarian", "hungary"), ("greek", "greece"), ("turkish", "turkey"),
    ("russian", "russia"), ("ukrainian", "ukraine"), ("japanese", "japan"), ("chinese", "china"), ("korean", "korea"),
    ("south korean", "south korea"), ("indian", "india"), ("thai", "thailand"), ("vietnamese", "vietnam"),
    ("australian", "australia"), ("canadian", "canada"), ("mexican", "mexico"), ("brazilian", "brazil"),
    ("argentine", "argentina"), ("argentinian", "argentina"), ("jamaican", "jamaica"), ("cuban", "cuba"),
    ("nigerian", "nigeria"), ("ethiopian", "ethiopia"), ("moroccan", "morocco"), ("egyptian", "egypt"),
    ("israeli", "israel"), ("iranian", "iran"), ("european", "europe"), ("asian", "asia"), ("african", "africa"),
)  # fmt: skip

SENSITIVE_PHRASES = _patterns(
    rf"\b{_PERSON}(?:'s)?\s+(?:is|are|was|must be|may be|seems to be|appears to be)\s+(?:a |an )?(?!keen|fond|drawn|into|clearly|"
    r"interested|mostly|also|not|less|more|a fan)\w+",
    r"\b(?:as|being|for|from|like|of|suggests?|is|was|be|probably|likely|perhaps|presumably|possibly)\s+(?:someone|somebody) (?:with|of|in|from|who (?:is|has|had|lives|votes|suffers|goes|"
    r"raises|grew|cannot|can't|believes|belongs|cares for|works|earns|lost))\b",
    r"\b(?:probably|perhaps|likely|presumably|possibly|apparently|no doubt|doubtless|surely|must be|might be|may be)\b"
    r"[^.;]{0,30}\b(?:as an?|having|being|(?:has|have|had) (?:been|two|three|young|small|lost)|"
    r"(?:because|since) (?:they (?:are|have|had|were|live|work|grew|suffer)|the user|of (?:having|being|their|illness))|after (?:a|an|the|having|losing)|"
    r"(?:due|owing) to|with (?:a|an|two|three|young|small))\b",
    r"\bwith (?:young|small|little|grown|several|two|three|four|a new) (?:\w+ )?(?:children|kids|sons|daughters|baby|babies|family)\b",
    r"\b(?:has|have|raising|expecting|feeding) (?:\w+ ){0,2}(?:children|kids|sons|daughters|baby|babies|child|family)\b",
    r"\b(?:single|new|expectant|young|working|stay-at-home|proud|busy) (?:parent|mother|father|mum|dad|mom|family)s?\b",
    r"\b(?:own|growing|large|new|young) (?:family|household|baby|children|kids)\b",
    r"\b(?:suffer\w*|struggl\w+|recover\w*|diagnos\w+|cop(?:e|es|ing)|liv(?:es|ing)|"
    r"(?:to|they|who|users?|people|may|might|must|can|also) live) (?:from|with)\b",  # and not "Live with some analysis"
    r"\b(?:circulation|blood pressure|eyesight|hearing|joints?|posture|sleep|digestion|immunity) (?:is|are) (?:a |an )?(?:problem|weak|poor|bad|failing)|"
    r"\bpoor (?:circulation|eyesight|hearing|posture|digestion)\b|"
    r"\b(?:chronic|mental|physical|heart|back|lung|liver|kidney|eating|sleep|weak|failing|poor|ill|bad) "
    r"(?:illness|health|condition|pain|disease|disorder|trouble|problem|back|heart|knee|eyesight|hearing|hip)s?\b",
    r"\b(?:vot(?:e|es|er|ed|ing)|supports? the|member of the|left-wing|right-wing|left-leaning|right-leaning|far-right|far-left|"
    r"party (?:member|supporter|line)|politically|political (?:views?|leanings?|left|right|beliefs?))\b",
    r"\b(?:money|financial|credit|cash|debt|loan|rent|mortgage)\s*(?:troubles?|worr\w+|problems?|difficult\w+|is tight|pressure|"
    r"struggles?|arrears|crisis)\b",
    r"\b(?:short of|low on|out of|lost|losing|lack of|little|not much|tight) (?:\w+ )?(?:money|cash|savings|funds|budget|means|income)\b",
    r"\b(?:in|into|out of) debt\b|\btight budget\b|\blow income\b|\bon benefits\b|\bout of work\b|\blost (?:a|the|their) job\b",
    r"\b(?:sexual|religious|ethnic|racial|gender) (?:orientation|identity|background|origin|minority|upbringing|faith|beliefs?)\b",
    r"\b(?:of|from) (?:\w+ )?(?:descent|heritage|ancestry|origin|roots)\b|\b(?:a|an|as) (?:immigrant|migrant|expat)\b",
    r"\b(?:faith|church|mosque|synagogue|temple|prayers?|god|allah|parish|congregation)\b(?=[^.;]*\b(?:user|person|own|their|life|devot)|\W*$)",
    r"\b(?:goes|going|went) to (?:church|mosque|mass|synagogue|temple)\b",
)
YEARS_OLD = _patterns(
    r"\b\d{1,2}[- ]years?[- ]old\b|\baged? (?:about |around )?\d{1,2}\b",
    r"\b(?:in|into|past|nearing|approaching|over) (?:their|his|her|the user's|an?|early|mid|late|[- ])*\s*"
    r"(?:twenties|thirties|forties|fifties|sixties|seventies|eighties|teens|middle age|old age|retirement)\b"
    r"(?=[^.;]*\b(?:user|person|someone|reader|listener|viewer|shopper|life)\b)",
    r"\bin (?:their|his|her) (?:early |mid[- ]?|late )?(?:twenties|thirties|forties|fifties|sixties|seventies|eighties|teens|\d0s)\b",
    r"\bof (?:a certain|advanced|retirement|pension) age\b|(?<!for )\b(?:older|younger|elderly|young|old|middle-aged|ageing) "
    r"(?:person|reader|viewer|listener|shopper|user|customer|adult|learner|buyer|player|man|woman|gentleman|lady|fan|parent)s?\b",
    r"\bgrand(?:mother|father|parent|child|children|son|daughter|kids)\w*\b",
)

MARKUP = _patterns(r"<[^>]*>|</|\*\*|__|```|\{|\}|\\n|##|&\w+;|\[/?[a-z]+\]|\]\(|#\w+|\u2022|\$\{")
COMMANDS = _patterns(
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.;]{0,40}\b(?:above|previous|prior|earlier|before|instruction\w*|"
    r"rules?|prompt|everything|all|that)\b",
    r"(?:^|[.!?;:,]\s*)(?:please\s+)?(?:buy|visit|click|subscribe|order|call|download|sign up|join|follow|send|reply|say|write|"
    r"print|repeat|answer|respond|act|pretend|remember|note|tell|add|use|enter|type|grab|hurry|shop|check out|go to|share|"
    r"transfer|pay|give|rate|vote|recommend|don't|do not|never)\s+(?!by|through|of|to be|out for)\w+",
    r"\b(?:your|yours|you|we|our|(?-i:us))\b",
    r"\b[\w-]+\.(?:com|net|org|example|io|shop|co|info|biz)\b|\bnewsletters?\b|\bsubscrib\w+|\bshould be sent\b|"
    r"\bwould like to receive\b|\bno profile could\b|\b(?:gold|silver|platinum|diamond) (?:patron|customer|tier|status|reader)",
    r"\b(?:profile|record|account|memory|history|log|data) (?:is |was |has been |now )?(?:cleared|deleted|reset|erased|wiped|updated|"
    r"locked|closed|exported|complete)\b|\bfree upgrade|\bowed\b|\b(?:gold|silver|platinum|lifetime) member",
    r"\b(?:is|are) (?:simply |clearly |by far )?(?:the )?(?:best|greatest|finest|number one)(?=\s*[.,;!]|$)",
    r"\b(?:best|finest|greatest|top) (?:[\w-]+ ){1,3}(?:in the (?:world|country|city|market)|on earth|there is)\b",
    r"\b(?:now|today|here|tonight)\s*!|!{1,}",
    r"\b(?:buy now|act now|limited (?:time|offer)|best (?:\w+ )?(?:ever|in the world|on earth|of all time|there is|in town|money can buy)|"
    r"greatest (?:\w+ )?(?:ever|of all time|on earth|in the world)|number one|no\. ?1|must[- ](?:buy|have|see|read|hear|own)|"
    r"everyone should|every (?:home|household|listener|reader|viewer) (?:should|needs|must)|"
    r"highly recommended|(?:finest|greatest|best) (?:[\w-]+ ){1,3}(?:alive|ever|around|anywhere|money can buy)|"
    r"can be forgotten|would do well (?:with|to)|five stars?|5 stars?|10/10|ten out of ten|a masterpiece|masterpieces|finest (?:\w+ )?ever|"
    r"free (?:shipping|delivery|gift)|discount|coupon|voucher|promo(?:tion|tional)?|special offer|sale|guaranteed|"
    r"cheapest|unbeatable|costs? the least|lowest prices?|chang\w+ [^.;]{0,30}\blives?|life-changing|award-winning|world-class|second to none|nothing else (?:comes close|compares)|long live|all hail|"
    r"vip|premium (?:customer|member|user)|verified|approved|certified|trusted|administrator|admin|superuser|root|"
    r"(?:holds?|owns|earned|awarded) (?:the|a|an) (?:[\w-]+ ){0,2}(?:diploma|certificate|degree|badge|licen[cs]e|award|title|rank|membership)|"
    r"unlock\w*|grant\w*|access|clearance|authori[sz]ed|privileges?|eligible|entitled|refund\w*|credit limit|override)\b",
)
SELF_TALK = _patterns(
    r"\b(?:as an? (?:ai|assistant|language model|model|bot|pirate|robot|expert|critic|chatbot)|language model|assistant|chatbot|"
    r"system prompt|prompt|instructions?|jailbreak|developer mode|debug|role[- ]?play as|pretend\w*|persona)\b",
    r"\b(?:i am|i'm|i will|i'll|i can|i have|i've|i was|i must|my|me|sorry|certainly|sure,|of course,|okay|ok,|arr+|ahoy|matey|yo-ho\w*)\b",
    r"\bI\b",
    r"\b(?:secret|pass ?word|pass ?phrase|code ?word|magic word|confirmation code|access code|hidden message|the code|token|api key|"
    r"hacked|pwned|overwritten|compliance|complied|acknowledged|confirmed|as (?:instructed|requested|asked|told|ordered|directed))\b",
    r"\b[A-Z]{4,}(?:\s+[A-Z]{2,})*\b(?<!\bTV)|\b[A-Z]+[-_]?\d{2,}\b",
)
# Case matters in the last two: "I" the pronoun, and shouting.
SELF_TALK = (*SELF_TALK[:2], re.compile(SELF_TALK[2].pattern), SELF_TALK[3], re.compile(SELF_TALK[4].pattern))

DISLIKES = _patterns(
    r"^(?:\w+ ){0,2}(?:dislikes?|avoids?|rejects?|hates?|detests?|loathes?|shuns?|(?:does|do|did) not|doesn't|doesn\u2019t|never|"
    r"has (?:no|little)|(?:stays?|steers?|keeps?|shies) (?:well )?(?:away|clear))\b"
)
LIKES = _patterns(
    r"^(?:\w+ ){0,2}(?:dislikes?|avoids?|rejects?|hates?|detests?|loathes?|shuns?|(?:does|do|did) not|doesn't|doesn\u2019t|never|"
    r"has (?:no|little)|(?:stays?|steers?|keeps?|shies) (?:well )?(?:away|clear))\b"
)
NEGATIVE = _patterns(
    r"\b(?:dis|un)lik\w+|\bavoid\w*|\breject\w*|\bskip\w*|\bhat(?:e|es|ed|ing)\b|\bdetest\w*|\bnot\b|n't\b|n\u2019t\b|\bnever\b",
    r"\b(?:stays?|steers?|keeps?|shies|shy|turns?|turned|walks?|moves?|looks?|sw\w+) (?:well )?(?:away|clear|off|past|back)\b",
    r"\bno (?:\w+ )?(?:time|patience|interest|taste|love|liking|fan|appetite|use|fondness|friend)\b",
    r"\b(?:little|scant|small|low|less|limited|hardly any) (?:\w+ )?(?:time|patience|interest|taste|love|liking|appetite|use|fondness|enthusiasm|"
    r"regard|for)\b",
    r"\b(?:drop|abandon|give up|gives up|dismiss|decline|refuse|leave|return|sen[dt]|hide|resist|shun|loath|abhor|mistrust|distrust|tire|ditch|bounce|"
    r"quit|lose|pass|rate|score|fall|switch)\w*\b",
    r"\b(?:against|averse|aversion|distaste|weary|bored|unimpressed|indifferent|lukewarm|unmoved|cold|cool|put off|hardly|rarely|seldom|"
    r"scarcely|negative\w*|poorly|low|badly|disappoint\w*|weak|unpopular|without|fails?|opposed|allergic|thumbs down|unhappy|tired|"
    r"no go|fed up|wary|sceptical|skeptical|critical|hostile|antipathy|impatien\w*|irritat\w*|annoy\w*|unconvinced|cares? little)\b",
)
LIKES = _patterns(
    r"(?<!not )(?<!n't )(?<!never )(?<!rarely )(?<!seldom )(?<!hardly )\b(?:enjoys|loves|adores|prefers|is fond of|is drawn to|"
    r"is keen on|keeps coming back|returns to)\b|^(?:likes|seeks out|goes for|favours)\b"
)
