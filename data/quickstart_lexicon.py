"""The word tables behind ``make_quickstart.py``: plain rows, one word (or phrase) a line, columns cut at ``|``.

Rows hold only what cannot be derived: regular English plurals, third persons and regular German present forms come
from rules in ``make_quickstart.py``. Every English word sense has exactly one German word, so that a translation is a
function of the English sentence.
"""

# English | English plural ("" regular, "-" none) | German | gender/genitive ending (m*n: weak noun) | plural | tags
NOUNS = """
man|men|Mann|m/es|Männer|person
woman|women|Frau|f|Frauen|person
child|children|Kind|n/es|Kinder|person young
boy||Junge|m*n|Jungen|person young boy
girl||Mädchen|n/s|Mädchen|person young
teacher||Lehrer|m/s|Lehrer|person own work
doctor||Arzt|m/es|Ärzte|person own work
nurse||Krankenschwester|f|Krankenschwestern|person work
neighbour||Nachbar|m*n|Nachbarn|person own
farmer||Bauer|m*n|Bauern|person work
student||Student|m*en|Studenten|person work
friend||Freund|m/es|Freunde|person own
baker||Bäcker|m/s|Bäcker|person work
waitress|waitresses|Kellnerin|f|Kellnerinnen|person work
actress|actresses|Schauspielerin|f|Schauspielerinnen|person work
singer||Sängerin|f|Sängerinnen|person work
king||König|m/s|Könige|person
queen||Königin|f|Königinnen|person
princess|princesses|Prinzessin|f|Prinzessinnen|person
policeman|policemen|Polizist|m*en|Polizisten|person work
tourist||Tourist|m*en|Touristen|person
guest||Gast|m/es|Gäste|person own
colleague||Kollege|m*n|Kollegen|person own
customer||Kunde|m*n|Kunden|person own
boss|bosses|Chef|m/s|Chefs|person own work
painter||Maler|m/s|Maler|person work
gardener||Gärtner|m/s|Gärtner|person own work
pupil||Schüler|m/s|Schüler|person work
secretary|secretaries|Sekretärin|f|Sekretärinnen|person own work
saleswoman|saleswomen|Verkäuferin|f|Verkäuferinnen|person work
uncle||Onkel|m/s|Onkel|person kin
aunt||Tante|f|Tanten|person kin
grandfather||Großvater|m/s|Großväter|person kin
grandmother||Großmutter|f|Großmütter|person kin
father|-|Vater|m/s||person kin
mother|-|Mutter|f||person kin
brother||Bruder|m/s|Brüder|person kin
sister||Schwester|f|Schwestern|person kin
son||Sohn|m/es|Söhne|person kin
daughter||Tochter|f|Töchter|person kin
niece||Nichte|f|Nichten|person kin
nephew||Neffe|m*n|Neffen|person kin
dog||Hund|m/es|Hunde|animal pet
cat||Katze|f|Katzen|animal pet
bird||Vogel|m/s|Vögel|animal pet
horse||Pferd|n/es|Pferde|animal farm
cow||Kuh|f|Kühe|animal farm
mouse|mice|Maus|f|Mäuse|animal
rabbit||Kaninchen|n/s|Kaninchen|animal pet
duck||Ente|f|Enten|animal farm
pig||Schwein|n/es|Schweine|animal farm
goat||Ziege|f|Ziegen|animal farm
donkey||Esel|m/s|Esel|animal farm
bear||Bär|m*en|Bären|animal wild
lion||Löwe|m*n|Löwen|animal wild
monkey||Affe|m*n|Affen|animal wild
elephant||Elefant|m*en|Elefanten|animal wild
apple||Apfel|m/s|Äpfel|food fruit
pear||Birne|f|Birnen|food fruit
banana||Banane|f|Bananen|food fruit
orange||Orange|f|Orangen|food fruit
cherry|cherries|Kirsche|f|Kirschen|food fruit
tomato|tomatoes|Tomate|f|Tomaten|food fruit
egg||Ei|n/s|Eier|food cook
potato|potatoes|Kartoffel|f|Kartoffeln|food cook
carrot||Karotte|f|Karotten|food cook
sausage||Wurst|f|Würste|food dish
cake||Kuchen|m/s|Kuchen|food dish bake
roll||Brötchen|n/s|Brötchen|food bake dish
biscuit||Keks|m/es|Kekse|food bake
pizza||Pizza|f|Pizzas|food dish bake
soup||Suppe|f|Suppen|food dish cook
salad||Salat|m/s|Salate|food dish
bread|-|Brot|n/es||food mass bake
cheese|-|Käse|m/s||food mass
meat|-|Fleisch|n/es||food mass
fish|-|Fisch|m/es||food mass
rice|-|Reis|m/es||food mass
butter|-|Butter|f||food mass
chocolate|-|Schokolade|f||food mass
honey|-|Honig|m/s||food mass
water|-|Wasser|n/s||drink mass
milk|-|Milch|f||drink mass
coffee|-|Kaffee|m/s||drink mass hot
tea|-|Tee|m/s||drink mass hot
juice|-|Saft|m/es||drink mass
beer|-|Bier|n/es||drink mass
wine|-|Wein|m/es||drink mass
lemonade|-|Limonade|f||drink mass
book||Buch|n/es|Bücher|text goods lie lend gift
newspaper||Zeitung|f|Zeitungen|text goods lie
letter||Brief|m/es|Briefe|text write lie sign send
story|stories|Geschichte|f|Geschichten|text write tell know
novel||Roman|m/s|Romane|text write goods lend
poem||Gedicht|n/s|Gedichte|text write know
magazine||Zeitschrift|f|Zeitschriften|text goods lie lend
message||Nachricht|f|Nachrichten|text write send
e-mail||E-Mail|f|E-Mails|text write send
report||Bericht|m/s|Berichte|text write sign send
postcard||Postkarte|f|Postkarten|text write send lie goods
contract||Vertrag|m/s|Verträge|text sign send
coat||Mantel|m/s|Mäntel|garment body goods
shirt||Hemd|n/es|Hemden|garment body goods
dress|dresses|Kleid|n/es|Kleider|garment body goods gift
hat||Hut|m/es|Hüte|garment goods lose
jacket||Jacke|f|Jacken|garment body goods
skirt||Rock|m/es|Röcke|garment body goods
scarf|scarves|Schal|m/s|Schals|garment body goods lose gift
blouse||Bluse|f|Blusen|garment body goods
jumper||Pullover|m/s|Pullover|garment body goods
cap||Mütze|f|Mützen|garment goods lose
suit||Anzug|m/s|Anzüge|garment body goods
shoe||Schuh|m/s|Schuhe|garment body goods clean pair
table||Tisch|m/es|Tische|furniture goods surface clean
chair||Stuhl|m/s|Stühle|furniture goods surface stand
sofa||Sofa|n/s|Sofas|furniture goods surface
bed||Bett|n/es|Betten|furniture goods surface
desk||Schreibtisch|m/s|Schreibtische|furniture goods surface
bench|benches|Bank|f|Bänke|furniture surface
cupboard||Schrank|m/s|Schränke|furniture goods open inside
lamp||Lampe|f|Lampen|furniture goods device stand
mirror||Spiegel|m/s|Spiegel|furniture goods hang clean
carpet||Teppich|m/s|Teppiche|furniture goods surface
picture||Bild|n/es|Bilder|thing hang paint gift describe
clock||Uhr|f|Uhren|thing goods hang repair
bag||Tasche|f|Taschen|thing goods container carry lose inside open
suitcase||Koffer|m/s|Koffer|thing goods container carry stand inside open
basket||Korb|m/es|Körbe|thing goods container carry stand inside
box|boxes|Schachtel|f|Schachteln|thing container carry inside open
bottle||Flasche|f|Flaschen|thing container stand open
cup||Tasse|f|Tassen|thing goods container stand dishes
glass|glasses|Glas|n/es|Gläser|thing goods container stand dishes
plate||Teller|m/s|Teller|thing goods stand dishes
knife|knives|Messer|n/s|Messer|thing goods lie dishes
spoon||Löffel|m/s|Löffel|thing goods lie dishes
fork||Gabel|f|Gabeln|thing goods lie dishes
vase||Vase|f|Vasen|thing goods stand gift
key||Schlüssel|m/s|Schlüssel|thing lie lose
ring||Ring|m/es|Ringe|thing goods lie lose gift
wallet||Brieftasche|f|Brieftaschen|thing lie lose
ticket||Fahrkarte|f|Fahrkarten|thing lie lose pay
umbrella||Regenschirm|m/s|Regenschirme|thing goods lose lend
pencil||Bleistift|m/s|Bleistifte|thing goods lie lend
ball||Ball|m/es|Bälle|thing goods gift
doll||Puppe|f|Puppen|thing goods gift
guitar||Gitarre|f|Gitarren|thing goods lend gift
camera||Kamera|f|Kameras|thing goods repair lend lose
radio||Radio|n/s|Radios|thing goods device repair stand
computer||Computer|m/s|Computer|thing goods device repair
television||Fernseher|m/s|Fernseher|thing goods device repair
mobile phone||Handy|n/s|Handys|thing goods device repair lose lend
washing machine||Waschmaschine|f|Waschmaschinen|thing goods device repair
present||Geschenk|n/s|Geschenke|thing gift send
flower||Blume|f|Blumen|thing plant gift paint
tree||Baum|m/es|Bäume|nature plant paint
photo||Foto|n/s|Fotos|thing lie describe send
door||Tür|f|Türen|opening open clean
window||Fenster|n/s|Fenster|opening open clean
car||Auto|n/s|Autos|vehicle repair costly lend
bus|buses|Bus|m/ses|Busse|vehicle public
train||Zug|m/es|Züge|vehicle public
tram||Straßenbahn|f|Straßenbahnen|vehicle public
ship||Schiff|n/es|Schiffe|vehicle public build
boat||Boot|n/es|Boote|vehicle repair build costly
taxi||Taxi|n/s|Taxis|vehicle
bicycle||Fahrrad|n/es|Fahrräder|vehicle repair goods lend
motorbike||Motorrad|n/es|Motorräder|vehicle repair costly lend
plane||Flugzeug|n/s|Flugzeuge|vehicle public
school||Schule|f|Schulen|place building
garden||Garten|m/s|Gärten|place
park||Park|m/s|Parks|place outdoor
town||Stadt|f|Städte|place visit settlement
village||Dorf|n/es|Dörfer|place visit settlement
shop||Laden|m/s|Läden|place building shut
market||Markt|m/es|Märkte|place outdoor
station||Bahnhof|m/s|Bahnhöfe|place building
museum||Museum|n/s|Museen|place building visit shut
church|churches|Kirche|f|Kirchen|place building visit build
kitchen||Küche|f|Küchen|place room clean
living room||Wohnzimmer|n/s|Wohnzimmer|place room clean
bedroom||Schlafzimmer|n/s|Schlafzimmer|place room clean
bathroom||Badezimmer|n/s|Badezimmer|place room clean
cellar||Keller|m/s|Keller|place room
hospital||Krankenhaus|n/es|Krankenhäuser|place building build
library|libraries|Bibliothek|f|Bibliotheken|place building shut
cinema||Kino|n/s|Kinos|place building shut
theatre||Theater|n/s|Theater|place building
restaurant||Restaurant|n/s|Restaurants|place building shut
café||Café|n/s|Cafés|place building shut
hotel||Hotel|n/s|Hotels|place building
bakery|bakeries|Bäckerei|f|Bäckereien|place building shut
pharmacy|pharmacies|Apotheke|f|Apotheken|place building shut
swimming pool||Schwimmbad|n/es|Schwimmbäder|place building shut
university|universities|Universität|f|Universitäten|place building
office||Büro|n/s|Büros|place building
factory|factories|Fabrik|f|Fabriken|place building build
airport||Flughafen|m/s|Flughäfen|place
castle||Schloss|n/es|Schlösser|place building visit
house||Haus|n/es|Häuser|place building build costly
flat||Wohnung|f|Wohnungen|place costly
bridge||Brücke|f|Brücken|place build
tower||Turm|m/es|Türme|place high build
street||Straße|f|Straßen|place outdoor
forest||Wald|m/es|Wälder|place outdoor
lake||See|m/s|Seen|place outdoor
river||Fluss|m/es|Flüsse|place
mountain||Berg|m/es|Berge|place high
beach|beaches|Strand|m/es|Strände|place outdoor
island||Insel|f|Inseln|place outdoor visit
question||Frage|f|Fragen|abstract understand task
answer||Antwort|f|Antworten|abstract understand ask
rule||Regel|f|Regeln|abstract understand task
exercise||Übung|f|Übungen|abstract understand task
problem||Problem|n/s|Probleme|abstract understand task topic
idea||Idee|f|Ideen|abstract understand topic
plan||Plan|m/es|Pläne|abstract understand topic
mistake||Fehler|m/s|Fehler|abstract topic
song||Lied|n/es|Lieder|art know
film||Film|m/s|Filme|art topic know
concert||Konzert|n/s|Konzerte|event topic
exam||Prüfung|f|Prüfungen|event topic
course||Kurs|m/es|Kurse|event
trip||Reise|f|Reisen|topic fun
party|parties|Party|f|Partys|event fun topic
wedding||Hochzeit|f|Hochzeiten|event fun topic
meeting||Besprechung|f|Besprechungen|event
holiday|-|Urlaub|m/s||fun topic
weekend|-|Wochenende|n/s||fun
time|-|Zeit|f||having
money|-|Geld|n/es||having
weather|-|Wetter|n/s||weather
"""

# English | comparative | superlative ("" with more/most) | German | comparative | superlative stem | noun tags
# A German comparative left empty is regular (-er, -st).
ADJECTIVES = """
old|older|oldest|alt|älter|ältest|person animal garment furniture vehicle place
young|younger|youngest|jung|jünger|jüngst|person animal
new|newer|newest|neu|neuer|neuest|garment furniture vehicle text device clock bag
big|bigger|biggest|groß|größer|größt|animal furniture container fruit place tree
tall|taller|tallest|groß|größer|größt|person
small|smaller|smallest|klein|||animal furniture container fruit place young tree
friendly|friendlier|friendliest|freundlich|||person
tired|||müde|müder|müdest|person
happy|happier|happiest|glücklich|||person
sad|sadder|saddest|traurig|||person
hungry|hungrier|hungriest|hungrig|||animal
thirsty|thirstier|thirstiest|durstig|||animal
sick|sicker|sickest|krank|kränker|kränkst|person animal
famous|||berühmt|berühmter|berühmtest|castle museum novel poem film song actress singer painter
rich|richer|richest|reich|||person
poor|poorer|poorest|arm|ärmer|ärmst|person
clever|||klug|klüger|klügst|person
lazy|lazier|laziest|faul|||person donkey cat
hard-working|||fleißig|||person
strong|stronger|strongest|stark|stärker|stärkst|man boy horse bear lion elephant coffee tea
brave|braver|bravest|mutig|||person
polite|||höflich|||person
funny|funnier|funniest|lustig|||person story film monkey
curious|||neugierig|||person animal
nice|nicer|nicest|nett|netter|nettest|person
shy|||schüchtern|||person
angry|angrier|angriest|wütend|wütender|wütendst|person
nervous|||nervös|nervöser|nervösest|person
patient|||geduldig|||person
beautiful|||schön|||garment furniture place picture vase ring flower bird horse song
ugly|uglier|ugliest|hässlich|||garment furniture picture vase house
expensive|||teuer|teurer|teuerst|garment furniture goods costly hotel restaurant wine
cheap|cheaper|cheapest|billig|||garment furniture goods costly hotel restaurant
heavy|heavier|heaviest|schwer|||furniture container
light|lighter|lightest|leicht|leichter|leichtest|container garment bicycle
modern|||modern|||furniture building device vehicle
red|||rot|||garment furniture container vehicle apple flower pencil ball
blue|||blau|||garment furniture container vehicle pencil ball
green|||grün|||garment furniture container vehicle apple pencil ball
yellow|||gelb|||garment container bicycle flower pear pencil ball
black|||schwarz|||garment furniture container vehicle dog cat horse umbrella
white|||weiß|||garment furniture container vehicle dog cat horse flower
brown|||braun|||garment furniture container dog horse bear cow
grey|||grau|||garment furniture container vehicle cat mouse donkey
long|longer|longest|lang|länger|längst|text street river bridge trip film report
short|shorter|shortest|kurz|kürzer|kürzest|text trip film answer
clean|cleaner|cleanest|sauber|||garment room dishes vehicle
dirty|dirtier|dirtiest|schmutzig|||garment room dishes vehicle opening
broken|||kaputt|kaputter|kaputtest|device repair chair umbrella
empty|emptier|emptiest|leer|||container
full|fuller|fullest|voll|||container bus train
fresh|fresher|freshest|frisch|||fruit bread fish meat milk juice roll salad
sweet|sweeter|sweetest|süß|süßer|süßest|fruit cake juice honey lemonade tea
ripe|riper|ripest|reif|||fruit
warm|warmer|warmest|warm|wärmer|wärmst|garment dish milk room
cold|colder|coldest|kalt|kälter|kältest|drink dish room
hot|hotter|hottest|heiß|heißer|heißest|hot dish milk
good|better|best|gut|besser|best|food drink text idea plan question answer restaurant school teacher friend doctor
bad|worse|worst|schlecht|schlechter|schlechtest|idea plan restaurant film answer
delicious|||lecker|||dish fruit bread cheese biscuit
interesting|||interessant|interessanter|interessantest|text museum film idea course trip question
boring|||langweilig|||text museum film meeting course
exciting|||spannend|spannender|spannendst|story novel film book
difficult|||schwierig|||task understand exam
easy|easier|easiest|einfach|||task understand exam
important|||wichtig|||message letter contract report question exam meeting rule
dangerous|||gefährlich|||wild river mountain trip street
fast|faster|fastest|schnell|||vehicle horse
slow|slower|slowest|langsam|||vehicle donkey computer
quiet|quieter|quietest|ruhig|||room building village street park flat
loud|louder|loudest|laut|lauter|lautest|public street radio washing_machine
dark|darker|darkest|dunkel|dunkler|dunkelst|room forest street
bright|brighter|brightest|hell|||room flat office
high|higher|highest|hoch|höher|höchst|high bridge
deep|deeper|deepest|tief|||lake river
wide|wider|widest|breit|breiter|breitest|street river bed
comfortable|||bequem|||chair sofa bed shoe
sharp|sharper|sharpest|scharf|schärfer|schärfst|knife
elegant|||elegant|eleganter|elegantest|garment woman hotel
practical|||praktisch|praktischer|praktischst|bag bicycle camera furniture
"""

# Stems used before an ending where the basic form loses or changes a letter.
ADJECTIVE_STEMS = {"dunkel": "dunkl", "teuer": "teur", "hoch": "hoh", "müde": "müd"}

# Base, past, participle, -ing (base alone: regular -ed, -ing) | English particle
# | German infinitive (prefix+stem) | (ich) du er | participle, auxiliary | object slots | subject tags | flags
# Slots: [English preposition=][German preposition+]case:noun tags, separated by ";".
# A "+" in the infinitive splits off the separable part; "_" stands for a space in it.
# SELF and HIS in the particle agree with the English subject. Flags: stative (no progressive), event (past only),
# nopast (English base and past look alike), nonot (nicht is never used), refl / reflD (reflexive pronoun in accusative
# / dative).
VERBS = """
sleep slept slept sleeping||schlafen|schläfst schläft|geschlafen haben||person animal|
work||arbeiten||gearbeitet haben||work kin|
laugh||lachen||gelacht haben||person|
cry cried cried crying||weinen||geweint haben||young person|
dance danced danced dancing||tanzen||getanzt haben||person|
sing sang sung singing||singen||gesungen haben||person|
swim swam swum swimming||schwimmen||geschwommen sein||person dog|
play||spielen||gespielt haben||young pet|
smile smiled smiled smiling||lächeln|lächle lächelst lächelt|gelächelt haben||person|
cook||kochen||gekocht haben||person|
get got got getting|up|auf+stehen||aufgestanden sein||person|
wake woke woken waking|up|auf+wachen||aufgewacht sein||person animal|
fall fell fallen falling|asleep|ein+schlafen|schläfst schläft|eingeschlafen sein||person animal|
come came come coming|back|zurück+kommen||zurückgekommen sein||person|
go went gone going|shopping|ein+kaufen||eingekauft haben||person|
watch|television|fern+sehen|siehst sieht|ferngesehen haben||person|
go went gone going|for a walk|spazieren_+gehen||spazieren gegangen sein||person|
have had had having|breakfast|frühstücken||gefrühstückt haben||person|
rest||aus+ruhen||ausgeruht haben||person|refl
hurry hurried hurried hurrying||beeilen||beeilt haben||person|refl
get got got getting|dressed|an+ziehen||angezogen haben||person|refl
wash|SELF|waschen|wäschst wäscht|gewaschen haben||person|refl
brush|HIS teeth|die_Zähne_+putzen||die Zähne geputzt haben||person|reflD nonot
wash|HIS hands|die_Hände_+waschen|wäschst wäscht|die Hände gewaschen haben||person|reflD nonot
play|the piano|Klavier_+spielen||Klavier gespielt haben||person|
play|football|Fußball_+spielen||Fußball gespielt haben||person|
eat ate eaten eating||essen|isst isst|gegessen haben|acc:food|person|
drink drank drunk drinking||trinken||getrunken haben|acc:drink|person|
buy bought bought buying||kaufen||gekauft haben|acc:goods food costly|person|
sell sold sold selling||verkaufen||verkauft haben|acc:goods costly farm|person|
read read read reading||lesen|liest liest|gelesen haben|acc:text|person|nopast
write wrote written writing||schreiben||geschrieben haben|acc:write|person|
see saw seen seeing||sehen|siehst sieht|gesehen haben|acc:person animal vehicle building|person|stative
find found found finding||finden||gefunden haben|acc:lose|person|event
look||suchen||gesucht haben|for=acc:lose pet person|person|
need||brauchen||gebraucht haben|acc:goods lose|person|stative
love loved loved loving||lieben||geliebt haben|acc:kin pet|person|stative
like liked liked liking||mögen|mag magst mag|gemocht haben|acc:food drink person animal garment|person|stative nopast
visit||besuchen||besucht haben|acc:kin person visit|person|
know knew known knowing||kennen||gekannt haben|acc:person know settlement|person|stative nopast
paint||malen||gemalt haben|acc:paint|person|
draw drew drawn drawing||zeichnen||gezeichnet haben|acc:paint animal|person|
repair||reparieren||repariert haben|acc:repair|person|
wash||waschen|wäschst wäscht|gewaschen haben|acc:garment|person|
clean||putzen||geputzt haben|acc:clean|person|
carry carried carried carrying||tragen|trägst trägt|getragen haben|acc:carry|person|
wear wore worn wearing||tragen|trägst trägt|getragen haben|acc:garment|person|
open||auf+machen||aufgemacht haben|acc:open|person|
close closed closed closing||zu+machen||zugemacht haben|acc:open|person|
lock||ab+schließen||abgeschlossen haben|acc:door house car cupboard|person|
call||an+rufen||angerufen haben|acc:person|person|
pick|up|ab+holen||abgeholt haben|acc:person|person|
take took taken taking|along|mit+nehmen|nimmst nimmt|mitgenommen haben|acc:lose carry lend|person|
invite invited invited inviting||ein+laden|lädst lädt|eingeladen haben|acc:person|person|
put put put putting|on|an+ziehen||angezogen haben|acc:body|person|nopast
take took taken taking|off|aus+ziehen||ausgezogen haben|acc:body|person|
try tried tried trying|on|an+probieren||anprobiert haben|acc:garment|person|
turn|on|an+machen||angemacht haben|acc:device|person|
turn|off|aus+machen||ausgemacht haben|acc:device|person|
lose lost lost losing||verlieren||verloren haben|acc:lose|person|event
forget forgot forgotten forgetting||vergessen|vergisst vergisst|vergessen haben|acc:lose|person|event
understand understood understood understanding||verstehen||verstanden haben|acc:understand|person|stative
build built built building||bauen||gebaut haben|acc:build|person|
sign||unterschreiben||unterschrieben haben|acc:sign|person|
translate translated translated translating||übersetzen||übersetzt haben|acc:text|person|
tidy tidied tidied tidying|up|auf+räumen||aufgeräumt haben|acc:room|person|
unpack||aus+packen||ausgepackt haben|acc:suitcase bag present|person|
give gave given giving|back|zurück+geben|gibst gibt|zurückgegeben haben|acc:lend|person|
describe described described describing||beschreiben||beschrieben haben|acc:describe building settlement|person|
order||bestellen||bestellt haben|acc:dish drink|person|
pay paid paid paying||bezahlen||bezahlt haben|for=acc:dish drink pay|person|
cook||kochen||gekocht haben|acc:cook|person|
bake baked baked baking||backen|bäckst bäckt|gebacken haben|acc:bake|person|
steal stole stolen stealing||stehlen|stiehlst stiehlt|gestohlen haben|acc:lose costly bicycle|person|event
meet met met meeting||treffen|triffst trifft|getroffen haben|acc:person|person|
greet||begrüßen||begrüßt haben|acc:person|person|
feed fed fed feeding||füttern|füttere fütterst füttert|gefüttert haben|acc:animal|person|
photograph||fotografieren||fotografiert haben|acc:building animal|person|
look||an+sehen|siehst sieht|angesehen haben|at=acc:hang describe house castle vehicle|person|reflD
help||helfen|hilfst hilft|geholfen haben|dat:person|person|
thank||danken||gedankt haben|dat:person|person|
answer||antworten||geantwortet haben|dat:person|person|
believe believed believed believing||glauben||geglaubt haben|dat:person|person|stative
trust||vertrauen||vertraut haben|dat:person|person|stative
follow||folgen||gefolgt sein|dat:person animal|person|
listen||zu+hören||zugehört haben|to=dat:person|person|
congratulate congratulated congratulated congratulating||gratulieren||gratuliert haben|dat:person|person|
wait||warten||gewartet haben|for=auf+acc:person public taxi|person|
think thought thought thinking||denken||gedacht haben|of=an+acc:person trip exam|person|
dream||träumen||geträumt haben|of=von+dat:costly trip person island|person|
talk||sprechen|sprichst spricht|gesprochen haben|about=über+acc:topic text|person|
look||auf+passen||aufgepasst haben|after=auf+acc:young pet|person|
ask||bitten|bittest bittet|gebeten haben|for=um+acc:answer dish drink|person|
take took taken taking|part|teil+nehmen|nimmst nimmt|teilgenommen haben|in=an+dat:course meeting|person|
look|forward|freuen||gefreut haben|to=auf+acc:fun concert|person|refl
be interested|interested|interessieren||interessiert haben|in=für+acc:art picture car book|person|refl stative
be annoyed|annoyed|ärgern|ärgere ärgerst ärgert|geärgert haben|about=über+acc:topic|person|refl stative
be afraid|afraid|fürchten||gefürchtet haben|of=vor+dat:wild dog exam|person|refl stative
remember||erinnern|erinnere erinnerst erinnert|erinnert haben|=an+acc:trip person|person|refl stative
fall fell fallen falling|in love|verlieben||verliebt haben|with=in+acc:princess actress singer|person|refl event
say said said saying|goodbye|verabschieden||verabschiedet haben|to=von+dat:person|person|refl
take took taken taking|care|kümmern|kümmere kümmerst kümmert|gekümmert haben|of=um+acc:young kin pet plant|person|refl
complain||beschweren||beschwert haben|about=über+acc:hotel boss film|person|refl
give gave given giving||geben|gibst gibt|gegeben haben|dat:person;acc:gift food lend|person|
show showed shown showing||zeigen||gezeigt haben|dat:person;acc:picture photo letter visit ring|person|
send sent sent sending||schicken||geschickt haben|dat:person;acc:send|person|
lend lent lent lending||leihen||geliehen haben|dat:person;acc:lend|person|
bring brought brought bringing||bringen||gebracht haben|dat:person;acc:dish drink newspaper gift|person|
tell told told telling||erzählen||erzählt haben|dat:person;acc:story|person|
read read read reading||vor+lesen|liest liest|vorgelesen haben|dat:young kin;acc:story poem letter novel|person|nopast
promise promised promised promising||versprechen|versprichst verspricht|versprochen haben|dat:person;acc:gift|person|
explain||erklären||erklärt haben|to=dat:person;acc:task plan|person|
recommend||empfehlen|empfiehlst empfiehlt|empfohlen haben|to=dat:person;acc:film hotel novel museum|person|
belong||gehören||gehört haben|to=dat:person|goods|stative
"""

# Verbs that only occur in their own sentence patterns (same columns as VERBS).
SPECIAL_VERBS = """
be||sein|bin bist ist|gewesen sein|||stative
have had had having||haben|hast hat|gehabt haben|||stative
rain||regnen||geregnet haben|||
snow||schneien||geschneit haben|||
go went gone going||gehen||gegangen sein|||
drive drove driven driving||fahren|fährst fährt|gefahren sein|||
run ran run running||laufen|läufst läuft|gelaufen sein|||
fly flew flown flying||fliegen||geflogen sein|||
travel travelled travelled travelling||reisen||gereist sein|||
live lived lived living||wohnen||gewohnt haben|||stative
stay||bleiben||geblieben sein|||
sit sat sat sitting||sitzen||gesessen haben|||
sit sat sat sitting|down|setzen||gesetzt haben|||refl
stand stood stood standing||stehen||gestanden haben|||
lie lay lain lying||liegen||gelegen haben|||nopast
put put put putting||stellen||gestellt haben|acc:stand||nopast
lay laid laid laying||legen||gelegt haben|acc:lie||
hang hung hung hanging||hängen||gehängt haben|acc:hang||
hang hung hung hanging|INTRANSITIVE|hängen||gehangen haben|||nopast
arrive arrived arrived arriving||an+kommen||angekommen sein|||
depart||ab+fahren|fährst fährt|abgefahren sein|||
begin began begun beginning||an+fangen|fängst fängt|angefangen haben|||
open|INTRANSITIVE|auf+machen||aufgemacht haben|||
close closed closed closing|INTRANSITIVE|zu+machen||zugemacht haben|||
take took taken taking|place|statt+finden||stattgefunden haben|||
cost cost cost costing||kosten||gekostet haben|||stative nopast
say said said saying||sagen||gesagt haben|||stative
hope hoped hoped hoping||hoffen||gehofft haben|||stative
think thought thought thinking|THAT|glauben||geglaubt haben|||stative
know knew known knowing|THAT|wissen|weiß weißt weiß|gewusst haben|||stative
ask|WHETHER|fragen||gefragt haben|||stative
try tried tried trying||versuchen||versucht haben|||
forget forgot forgotten forgetting|TO|vergessen|vergisst vergisst|vergessen haben|||stative
"""

# Auxiliary-like German forms: ich, du, er, plural.
GERMAN_FORMS = {
    "haben": "habe hast hat haben",
    "sein": "bin bist ist sind",
    "werden": "werde wirst wird werden",
    "wurde": "wurde wurdest wurde wurden",
    "würde": "würde würdest würde würden",
    "war": "war warst war waren",
    "hatte": "hatte hattest hatte hatten",
    "wäre": "wäre wärst wäre wären",
    "hätte": "hätte hättest hätte hätten",
    "kann": "kann kannst kann können",
    "muss": "muss musst muss müssen",
    "will": "will willst will wollen",
    "sollte": "sollte solltest sollte sollten",
    "darf": "darf darfst darf dürfen",
    "möchte": "möchte möchtest möchte möchten",
    "musste": "musste musstest musste mussten",
    "wollte": "wollte wolltest wollte wollten",
}

# English modal (finite word, rest) -> German row of GERMAN_FORMS. "want"/"have" are inflected and take do-support.
MODALS = {
    "can": ("can", "", "kann"),
    "must": ("must", "", "muss"),
    "should": ("should", "", "sollte"),
    "may": ("may", "", "darf"),
    "want": ("want", "to", "will"),
    "have": ("have", "to", "muss"),
    "wish": ("would", "like to", "möchte"),
    "wanted": ("wanted", "to", "wollte"),
    "had": ("had", "to", "musste"),
}

# Tense -> time adverbials that fit it (English | German).
TIMES = {
    "prog": "now|jetzt;today|heute;at the moment|im Moment",
    "pres": "every day|jeden Tag;every week|jede Woche;every evening|jeden Abend;on Mondays|montags;"
    "on Fridays|freitags;on Sundays|sonntags;in summer|im Sommer;in winter|im Winter;at the weekend|am Wochenende;"
    "in the morning|am Morgen;in the evening|am Abend",
    "past": "yesterday|gestern;yesterday evening|gestern Abend;this morning|heute Morgen;two days ago|vor zwei Tagen;"
    "an hour ago|vor einer Stunde;on Tuesday|am Dienstag;on Thursday|am Donnerstag;on Saturday|am Samstag",
    "fut": "tomorrow|morgen;soon|bald;tomorrow evening|morgen Abend;in two days|in zwei Tagen;later|später;"
    "in an hour|in einer Stunde;on Tuesday|am Dienstag;on Thursday|am Donnerstag;on Saturday|am Samstag",
    "long past": "last week|letzte Woche;last year|letztes Jahr;last month|letzten Monat;a year ago|vor einem Jahr;"
    "three weeks ago|vor drei Wochen",
    "long fut": "next week|nächste Woche;next year|nächstes Jahr;next month|nächsten Monat;"
    "in three weeks|in drei Wochen",
}
# What is also worth telling (or planning) with a distance of weeks and years.
LONG_VERBS = (
    "kaufen verkaufen schreiben lesen besuchen malen bauen stehlen verlieren verlieben treffen einladen helfen "
)
LONG_VERBS += (
    "übersetzen teilnehmen reisen fliegen bleiben leihen schicken reparieren versprechen arbeiten unterschreiben"
)
FREQUENCIES = "often|oft;always|immer;sometimes|manchmal;never|nie;rarely|selten;usually|normalerweise"
MANNERS = "slowly|langsam;quickly|schnell;carefully|vorsichtig"
LOUD_MANNERS = "loudly|laut;quietly|leise;together|zusammen;alone|allein"

# Place noun | English and German preposition of location | going there: t = "to"/zu, i = "into"/in with accusative
PLACES = """
school|in in|t i
garden|in in|i
park|in in|t i
town|in in|i
village|in in|i
shop|in in|t i
market|at auf|t
station|at an|t
museum|in in|t i
church|in in|t i
kitchen|in in|i
living room|in in|i
bedroom|in in|i
bathroom|in in|i
cellar|in in|i
hospital|in in|t i
library|in in|t i
cinema|in in|t i
theatre|in in|t i
restaurant|in in|t i
café|in in|t i
hotel|in in|t i
bakery|in in|t i
pharmacy|in in|t i
swimming pool|in in|t i
university|at an|t
office|in in|t i
factory|in in|t i
airport|at an|t
castle|in in|t i
house|in in|i
bridge|on auf|t
street|in auf|
forest|in in|i
lake|at an|t
beach|on an|t
island|on auf|
river|at an|t
"""
# What people do where; verbs not listed take any place of "anywhere".
VERB_PLACES = {
    "schwimmen": "lake river swimming_pool",
    "kochen": "kitchen restaurant",
    "spazieren gehen": "park forest town beach village",
    "einkaufen": "town village bakery shop market",
    "schlafen": "bedroom garden living_room hotel",
    "spielen": "garden park street living_room school beach",
    "Fußball spielen": "park street garden beach school",
    "Klavier spielen": "living_room school theatre hotel",
    "tanzen": "street park kitchen garden castle",
    "singen": "church school garden theatre kitchen bathroom",
    "arbeiten": "office factory hospital garden library hotel museum restaurant shop bakery",
    "frühstücken": "kitchen hotel café garden living_room",
    "lesen": "library garden living_room park café",
    "kaufen": "town shop market village",
    "treffen": "town park café station museum cinema theatre airport",
    "warten": "station airport school museum hotel",
    "essen": "restaurant kitchen garden park café",
    "trinken": "kitchen café garden restaurant living_room",
    "sehen": "town park station street village",
    "finden": "kitchen street garden cellar school beach",
    "suchen": "house garden cellar street park",
    "verlieren": "forest town park cinema school",
    "vergessen": "restaurant office hotel library school",
}

CITIES = "Berlin|Berlin;Hamburg|Hamburg;Munich|München;Vienna|Wien;Cologne|Köln;Paris|Paris;London|London;Rome|Rom;"
CITIES += "Zurich|Zürich;Prague|Prag;Warsaw|Warschau;Madrid|Madrid;Italy|Italien;France|Frankreich;Spain|Spanien;"
CITIES += "Austria|Österreich;Germany|Deutschland;Greece|Griechenland;Poland|Polen;Norway|Norwegen"
MEN = "Peter Paul Michael David Martin Daniel Stefan Simon"
WOMEN = "Anna Maria Laura Julia Sarah Lena Sophie Emma"

MONTHS = "January|Januar;February|Februar;March|März;April|April;May|Mai;June|Juni;July|Juli;August|August;"
MONTHS += "September|September;October|Oktober;November|November;December|Dezember"
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
WEEKDAYS = "Monday|Montag;Tuesday|Dienstag;Wednesday|Mittwoch;Thursday|Donnerstag;Friday|Freitag;"
WEEKDAYS += "Saturday|Samstag;Sunday|Sonntag"


def _list(text: str) -> list[str]:
    return text.split()


EN_ONES = _list(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
EN_TENS = _list("- ten twenty thirty forty fifty sixty seventy eighty ninety")
EN_ORDINALS = {1: "first", 2: "second", 3: "third", 5: "fifth", 8: "eighth", 9: "ninth", 12: "twelfth"}
DE_ONES = _list(
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
DE_TENS = _list("- zehn zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
DE_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
