<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="fr" sourcelanguage="en">
<context>
    <name>AboutDialog</name>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>&amp;Copy the versions</source>
        <translation>&amp;Copier les versions</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>A bench for smart meters: connect, command, measure, replay. Free software under the Apache License 2.0; Qt is used under the LGPL and can be replaced in the folder of the program.</source>
        <translation>Un banc pour compteurs communicants : connecter, commander, mesurer, rejouer. Logiciel libre sous licence Apache 2.0 ; Qt est utilisé sous LGPL et peut être remplacé dans le dossier du programme.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>About Meterwright</source>
        <translation>À propos de Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Copied</source>
        <translation>Copié</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence</source>
        <translation>Licence</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence of {name}</source>
        <translation>Licence de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Meterwright {version}</source>
        <translation>Meterwright {version}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Part</source>
        <translation>Composant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Parts and their licences</source>
        <translation>Composants et leurs licences</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Préférences : {config}
Espaces de travail : {data}
Journal du programme et rapports d&apos;incident : {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Version</source>
        <translation>Version</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>{name} is under {licence}. Its text is not among the installed files.</source>
        <translation>{name} est sous licence {licence}. Son texte ne figure pas parmi les fichiers installés.</translation>
    </message>
</context>
<context>
    <name>Accuracy</name>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A meter silent for longer breaks it off.</source>
        <translation>Un compteur muet plus longtemps l&apos;interrompt.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A repeat ends after</source>
        <translation>Une répétition s&apos;achève après</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Accuracy test: {name}</source>
        <translation>Essai de précision : {name}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At every load point the error is within the limit, its uncertainty included.</source>
        <translation>À chaque point de charge, l&apos;erreur est dans la limite, incertitude comprise.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At load point {points} the limit lies within the uncertainty: measure longer, or with a better reference.</source>
        <translation>Au point de charge {points}, la limite se trouve dans l&apos;incertitude : mesurez plus longtemps, ou avec un meilleur étalon.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before every load point.</source>
        <translation>Avant chaque point de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before the first load point.</source>
        <translation>Avant le premier point de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Certificate number</source>
        <translation>Numéro de certificat</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Choose a device and one of its quantities.</source>
        <translation>Choisissez un appareil et l&apos;une de ses grandeurs.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Class</source>
        <translation>Classe</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Connected</source>
        <translation>Raccordement</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Coverage factor k</source>
        <translation>Facteur d&apos;élargissement k</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Current (A)</source>
        <translation>Courant (A)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Drift since</source>
        <translation>Dérive depuis</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration</source>
        <translation>Durée</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration (s)</source>
        <translation>Durée (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Ended {time}</source>
        <translation>Terminé {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Energy</source>
        <translation>Énergie</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error</source>
        <translation>Erreur</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error (%)</source>
        <translation>Erreur (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Everything that went in and came out</source>
        <translation>Toutes les données d&apos;entrée et de sortie</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Expanded uncertainty</source>
        <translation>Incertitude élargie</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Factor</source>
        <translation>Facteur</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the certificate.</source>
        <translation>Du certificat.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the meter&apos;s plate.</source>
        <translation>De la plaque du compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>How far the time of a value may be off; a constant delay does not count.</source>
        <translation>De combien l&apos;heure d&apos;une valeur peut être fausse ; un retard constant ne compte pas.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It is corrected.</source>
        <translation>Elle est corrigée.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It stands on the meter.</source>
        <translation>Elle figure sur le compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Kind of value</source>
        <translation>Type de valeur</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Known error</source>
        <translation>Erreur connue</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit</source>
        <translation>Limite</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit from</source>
        <translation>Limite issue de</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit of its class</source>
        <translation>Limite de sa classe</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit ± (%)</source>
        <translation>Limite ± (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load</source>
        <translation>Charge</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point</source>
        <translation>Point de charge</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {number}: {text}</source>
        <translation>Point de charge {number} : {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {points} has no limit, so no verdict.</source>
        <translation>Le point de charge {points} n&apos;a pas de limite, donc pas de verdict.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Longest gap</source>
        <translation>Plus longue lacune</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Mean power (W)</source>
        <translation>Puissance moyenne (W)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter constant</source>
        <translation>Constante du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test</source>
        <translation>Compteur en essai</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test (Wh)</source>
        <translation>Compteur en essai (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name of the test</source>
        <translation>Nom de l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Of that uncertainty; mostly 2.</source>
        <translation>De cette incertitude ; le plus souvent 2.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Phases</source>
        <translation>Phases</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Power factor</source>
        <translation>Facteur de puissance</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference</source>
        <translation>Étalon</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference (Wh)</source>
        <translation>Étalon (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeat</source>
        <translation>Répétition</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeats</source>
        <translation>Répétitions</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Resolution</source>
        <translation>Résolution</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Rules</source>
        <translation>Règles</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Settling</source>
        <translation>Stabilisation</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start (UTC)</source>
        <translation>Début (UTC)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start and stop at readings of</source>
        <translation>Début et fin sur relevés de</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Take the meter that is read more seldom.</source>
        <translation>Prenez le compteur lu le moins souvent.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The error is beyond the limit at load point {points}.</source>
        <translation>L&apos;erreur dépasse la limite au point de charge {points}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The smallest step that the meter&apos;s value makes.</source>
        <translation>Le plus petit pas de la valeur du compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>This class has no limits for meters connected so.</source>
        <translation>Cette classe n&apos;a pas de limites pour les compteurs ainsi raccordés.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Timing</source>
        <translation>Horodatage</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Transformer ratio, else 1.</source>
        <translation>Rapport de transformation, sinon 1.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Voltage (V)</source>
        <translation>Tension (V)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Warm-up</source>
        <translation>Préchauffage</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What it may have moved since.</source>
        <translation>De combien il a pu dériver depuis.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Where there is no certificate.</source>
        <translation>À défaut de certificat.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Without one, state a limit for each load point.</source>
        <translation>Sans classe, indiquez une limite pour chaque point de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of energy</source>
        <translation>un compteur d&apos;énergie</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of pulses</source>
        <translation>un compteur d&apos;impulsions</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a time</source>
        <translation>une durée</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>all phases</source>
        <translation>toutes les phases</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>an energy of the reference</source>
        <translation>une énergie de l&apos;étalon</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>broken off</source>
        <translation>interrompu</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>class {name}, {standard}</source>
        <translation>classe {name}, {standard}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>directly</source>
        <translation>direct</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>done</source>
        <translation>terminé</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>fail</source>
        <translation>non conforme</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>later</source>
        <translation>plus tard</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>measuring</source>
        <translation>mesure</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>no verdict</source>
        <translation>sans verdict</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>none</source>
        <translation>aucune</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>one phase</source>
        <translation>une phase</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pass</source>
        <translation>conforme</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>power</source>
        <translation>puissance</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pulses</source>
        <translation>impulsions</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>set the load</source>
        <translation>réglez la charge</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>settling</source>
        <translation>stabilisation</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>through current transformers</source>
        <translation>par transformateurs de courant</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>undecided</source>
        <translation>indécis</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>{done} of {planned} load points were measured.</source>
        <translation>{done} points de charge sur {planned} ont été mesurés.</translation>
    </message>
</context>
<context>
    <name>AccuracyPanel</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A test is under way: see Measurement. What is changed here is for the next one.</source>
        <translation>Un essai est en cours : voir Mesure. Ce qui est modifié ici vaut pour le prochain.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy</source>
        <translation>Précision</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} of {count}: {error}, {verdict}.</source>
        <translation>Essai de précision : point de charge {number} sur {count} : {error}, {verdict}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} was broken off: {reason}.</source>
        <translation>Essai de précision : le point de charge {number} a été interrompu : {reason}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>An accuracy test compares a meter under test with a reference meter.
No meter has told energy or power yet. Connect both in the tree on the left: as soon as their values come, the test is planned here.</source>
        <translation>Un essai de précision compare un compteur en essai à un compteur étalon.
Aucun compteur n&apos;a encore donné d&apos;énergie ni de puissance. Connectez les deux dans l&apos;arborescence à gauche : dès que leurs valeurs arrivent, l&apos;essai se prépare ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measurement</source>
        <translation>Mesure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Plan</source>
        <translation>Plan</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results</source>
        <translation>Résultats</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load of the next one.</source>
        <translation>Réglez la charge du suivant.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This is a recording: a test needs live meters. Open a workspace to measure.</source>
        <translation>Ceci est une relecture : un essai demande des compteurs en direct. Ouvrez un espace de travail pour mesurer.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Views of the test</source>
        <translation>Vues de l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the test was ended</source>
        <translation>l&apos;essai a été terminé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the workspace was closed</source>
        <translation>l&apos;espace de travail a été fermé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, numéro de série {serial}</translation>
    </message>
</context>
<context>
    <name>Actions</name>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;About Meterwright</source>
        <translation>À &amp;propos de Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Accuracy test</source>
        <translation>&amp;Essai de précision</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Arm writing</source>
        <translation>Armer l&apos;écrit&amp;ure</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Chart</source>
        <translation>&amp;Graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Close the chart</source>
        <translation>&amp;Fermer le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Compare logs, meters or readings</source>
        <translation>&amp;Comparer journaux, compteurs ou relevés</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Connect</source>
        <translation>&amp;Connecter</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Disconnect</source>
        <translation>&amp;Déconnecter</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Duplicate the chart</source>
        <translation>&amp;Dupliquer le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Edit the connection...</source>
        <translation>Modi&amp;fier la connexion...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Export the log...</source>
        <translation>E&amp;xporter le journal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;File</source>
        <translation>&amp;Fichier</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Filter</source>
        <translation>&amp;Filtrer</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Go to</source>
        <translation>&amp;Aller à</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Help</source>
        <translation>A&amp;ide</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Keyboard shortcuts</source>
        <translation>&amp;Raccourcis clavier</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New chart</source>
        <translation>&amp;Nouveau graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New workspace...</source>
        <translation>&amp;Nouvel espace de travail...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Open workspace...</source>
        <translation>&amp;Ouvrir un espace de travail...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Pause or resume the chart</source>
        <translation>Mettre en &amp;pause ou reprendre le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Quit</source>
        <translation>&amp;Quitter</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Read everything</source>
        <translation>&amp;Tout lire</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Replay a log...</source>
        <translation>Rejouer &amp;un journal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Same time in all charts</source>
        <translation>Même heure dans &amp;tous les graphiques</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Send a command...</source>
        <translation>&amp;Envoyer une commande...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Share a part of the log...</source>
        <translation>&amp;Partager une partie du journal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Team database...</source>
        <translation>&amp;Base d&apos;équipe...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Threshold...</source>
        <translation>&amp;Seuil...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Undo the last change</source>
        <translation>Annuler le dernier chan&amp;gement</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;View</source>
        <translation>Affic&amp;hage</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A battery system as a picture: grid, inverter, load and battery.</source>
        <translation>Un système à batterie en image : réseau, onduleur, charge et batterie.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A curve computed from others, for example U * I.</source>
        <translation>Une courbe calculée à partir d&apos;autres, par exemple U * I.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A meter against a reference, load point by load point.</source>
        <translation>Un compteur face à un étalon, point de charge par point de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Accuracy</source>
        <translation>Précision</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add another &amp;way...</source>
        <translation>Ajouter une autre &amp;voie...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add the devices that stand in a TOML or CSV file to this workspace.</source>
        <translation>Ajouter à cet espace de travail les appareils d&apos;un fichier TOML ou CSV.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>All charts show the same range of time and move together.</source>
        <translation>Tous les graphiques montrent la même plage de temps et se déplacent ensemble.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Another chart beside these, with curves of its own.</source>
        <translation>Un graphique de plus à côté de ceux-ci, avec ses propres courbes.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Batch</source>
        <translation>Lot</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Change the name, the place or the connection of this device.</source>
        <translation>Modifier le nom, l&apos;emplacement ou la connexion de cet appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Charts of what the meters tell.</source>
        <translation>Graphiques de ce que disent les compteurs.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Chec&amp;k the log...</source>
        <translation>Vér&amp;ifier le journal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose a device first.</source>
        <translation>Choisissez d&apos;abord un appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose the way to this meter: directly, or through a head-end.</source>
        <translation>Choisir la voie vers ce compteur : directe ou par une tête de réseau.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose what is in front of you; it is looked for, tested and saved.</source>
        <translation>Choisir ce qui est devant vous ; c&apos;est recherché, testé et enregistré.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close every link and leave.</source>
        <translation>Fermer toutes les liaisons et quitter.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close the link to this device. Commands that wait go on waiting.</source>
        <translation>Fermer la liaison vers cet appareil. Les commandes en attente le restent.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours of the s&amp;ystem</source>
        <translation>Couleurs du s&amp;ystème</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours, language, times, folders and how long writing stays armed.</source>
        <translation>Couleurs, langue, heures, dossiers et durée pendant laquelle l&apos;écriture reste armée.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Com&amp;pare with another meter...</source>
        <translation>C&amp;omparer à un autre compteur...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Command p&amp;alette...</source>
        <translation>&amp;Palette de commandes...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands of {device} go this way from now on.</source>
        <translation>Les commandes de {device} passent désormais par cette voie.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands that change something may be sent for some minutes; then this window only reads again.</source>
        <translation>Les commandes qui modifient quelque chose peuvent être envoyées pendant quelques minutes ; ensuite cette fenêtre ne fait de nouveau que lire.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commiss&amp;ion...</source>
        <translation>&amp;Mettre en service...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commission</source>
        <translation>Mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commissioning</source>
        <translation>Mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Compare</source>
        <translation>Comparer</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Connect a &amp;new meter...</source>
        <translation>Connecter un &amp;nouveau compteur...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Curves of a CSV file, a recording or another workspace to compare with.</source>
        <translation>Courbes d&apos;un fichier CSV, d&apos;une acquisition ou d&apos;un autre espace de travail, pour comparer.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Da&amp;rk colours</source>
        <translation>Couleurs som&amp;bres</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Dark on light, whatever the desktop says.</source>
        <translation>Foncé sur clair, quel que soit le bureau.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Deri&amp;ved quantity...</source>
        <translation>&amp;Grandeur dérivée...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Devices, commands and the fourteen steps.</source>
        <translation>Appareils, commandes et les quatorze étapes.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Enter every setting of a meter or gateway, or add a site or grid.</source>
        <translation>Saisir tous les réglages d&apos;un compteur ou d&apos;une passerelle, ou ajouter un site ou un réseau électrique.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every command and every answer, filtered as you like.</source>
        <translation>Chaque commande et chaque réponse, filtrées à votre gré.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every key of the menus, the charts, the log and the bytes.</source>
        <translation>Toutes les touches des menus, des graphiques, du journal et des octets.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every view of the centre, also those without a tab now.</source>
        <translation>Chaque vue du centre, même celles sans onglet en ce moment.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Files used &amp;lately</source>
        <translation>Fichiers &amp;récents</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Filter the list or log where you are.</source>
        <translation>Filtrer la liste ou le journal où vous êtes.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Find any action, device or command by typing.</source>
        <translation>Trouver toute action, tout appareil ou toute commande en tapant.</translation>
    </message>
    <message>
        <source>Flo&amp;ws of this device</source>
        <translation type="vanished">&amp;Procédures de cet appareil</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flow</source>
        <translation>Procédure</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flows of this de&amp;vice</source>
        <translation>&amp;Procédures de cet appareil</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Forget the way {way}</source>
        <translation>Oublier la voie {way}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is &amp;online</source>
        <translation>Passerelle en &amp;ligne</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is o&amp;ff</source>
        <translation>Passerelle &amp;arrêtée</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Give the chart that is shown another name.</source>
        <translation>Donner un autre nom au graphique affiché.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go on working with a workspace: its links open and its log grows.</source>
        <translation>Continuer avec un espace de travail : ses liaisons s&apos;ouvrent et son journal s&apos;allonge.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commands of this device.</source>
        <translation>Aller aux commandes de cet appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commissioning of this meter: its steps, and how far it is.</source>
        <translation>Aller à la mise en service de ce compteur : ses étapes et son avancement.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the flows that suit this device, the run under way and earlier ones.</source>
        <translation>Aller aux procédures adaptées à cet appareil, à l&apos;exécution en cours et aux précédentes.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to {view}</source>
        <translation>Aller à {view}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to, rename, export, compare or remove what was recorded.</source>
        <translation>Retrouver, renommer, exporter, comparer ou retirer ce qui a été acquis.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is &amp;lit</source>
        <translation>Réseau électri&amp;que sous tension</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is dar&amp;k</source>
        <translation>Réseau électrique &amp;hors tension</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Hold the picture still; recording goes on.</source>
        <translation>Figer l&apos;image ; l&apos;acquisition continue.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Commission</source>
        <translation>Disposition &amp;Mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Lab</source>
        <translation>Disposition &amp;Laboratoire</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Support</source>
        <translation>Disposition &amp;Support</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Ligh&amp;t colours</source>
        <translation>Couleurs &amp;claires</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light on dark, whatever the desktop says.</source>
        <translation>Clair sur foncé, quel que soit le bureau.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light or dark as the desktop says.</source>
        <translation>Clair ou sombre, comme le bureau.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Live</source>
        <translation>Direct</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Log</source>
        <translation>Journal</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>N&amp;ote...</source>
        <translation>N&amp;ote...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Name the time from now on, to find, export and compare it later.</source>
        <translation>Nommer la période qui commence, pour la retrouver, l&apos;exporter et la comparer plus tard.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Named ranges of time, to go to, export and compare.</source>
        <translation>Des plages de temps nommées, à retrouver, exporter et comparer.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>New device &amp;by hand...</source>
        <translation>Nouvel appareil à la ma&amp;in...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Nothing has to be armed here: no meter is real.</source>
        <translation>Rien n&apos;est à armer ici : aucun compteur n&apos;est réel.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>OCMF records of charging, and whether they are genuine.</source>
        <translation>Des enregistrements OCMF de recharge, et s&apos;ils sont authentiques.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Objects</source>
        <translation>Objets</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>One command or flow for many devices, from a list or chosen in the tree.</source>
        <translation>Une commande ou une procédure pour plusieurs appareils, depuis une liste ou choisis dans l&apos;arbre.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a lo&amp;g...</source>
        <translation>Ouvrir un &amp;journal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a workspace first.</source>
        <translation>Ouvrez d&apos;abord un espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open one of the workspaces and logs used last.</source>
        <translation>Ouvrir l&apos;un des derniers espaces de travail et journaux utilisés.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;demo site</source>
        <translation>Ouvrir le site de &amp;démonstration</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;log folder</source>
        <translation>Ouvrir le dossier du &amp;journal</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the link to this device.</source>
        <translation>Ouvrir la liaison vers cet appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Palette</source>
        <translation>Palette</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Pause</source>
        <translation>Pause</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Push what is new in this workspace to a PostgreSQL that a team shares.</source>
        <translation>Copier les nouveautés de cet espace de travail dans un PostgreSQL partagé par une équipe.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;ference curves...</source>
        <translation>Courbes de &amp;référence...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;move the device...</source>
        <translation>&amp;Retirer l&apos;appareil...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reac&amp;h it</source>
        <translation>&amp;Joindre par</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reach {device}: {way}</source>
        <translation>Joindre {device} : {way}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read</source>
        <translation>Lire</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a site &amp;file...</source>
        <translation>&amp;Lire un fichier de site...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a workspace or export that somebody sent, also a damaged one. Nothing in it is changed.</source>
        <translation>Lire un espace de travail ou un export reçu, même endommagé. Rien n&apos;y est modifié.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readings</source>
        <translation>Relevés</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readouts, load profiles, clocks and logs that the chosen meter has sent.</source>
        <translation>Relèves, courbes de charge, horloges et journaux envoyés par le compteur choisi.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Recordings</source>
        <translation>Acquisitions</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Rena&amp;me the chart</source>
        <translation>Reno&amp;mmer le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Replay every command and decode its bytes again, and see what is not as it was recorded.</source>
        <translation>Rejouer chaque commande et redécoder ses octets, pour voir ce qui n&apos;est pas comme enregistré.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Report</source>
        <translation>Procès-verbal</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>S&amp;tay armed longer</source>
        <translation>Re&amp;ster armé plus longtemps</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save re&amp;port...</source>
        <translation>Enregistrer le procès-&amp;verbal...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save the report of the run that is shown as PDF, HTML or JSON.</source>
        <translation>Enregistrer le procès-verbal de l&apos;exécution affichée en PDF, HTML ou JSON.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say how else this meter can be reached; the way in use stays in use.</source>
        <translation>Indiquer comment joindre autrement ce compteur ; la voie utilisée le reste.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is off or cannot be reached.</source>
        <translation>Signaler que cette passerelle est arrêtée ou injoignable.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is on and can be reached.</source>
        <translation>Signaler que cette passerelle est en marche et joignable.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has no power.</source>
        <translation>Signaler que ce réseau électrique n&apos;est pas alimenté.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has power again.</source>
        <translation>Signaler que ce réseau électrique est de nouveau alimenté.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say when a quantity goes beyond a limit.</source>
        <translation>Signaler quand une grandeur dépasse une limite.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between this meter and another one, aligned by command.</source>
        <translation>Voir les différences entre ce compteur et un autre, alignés par commande.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between two of them, aligned by command.</source>
        <translation>Voir les différences entre deux d&apos;entre eux, alignés par commande.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send</source>
        <translation>Envoyer</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send every read command that needs no parameter.</source>
        <translation>Envoyer toutes les commandes de lecture sans paramètre.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Sett&amp;ings...</source>
        <translation>Pré&amp;férences...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Show the record&amp;ings</source>
        <translation>Afficher les ac&amp;quisitions</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Signed records</source>
        <translation>Enregistrements signés</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Simulated meters of every kind, without any hardware.</source>
        <translation>Compteurs simulés de toutes sortes, sans aucun matériel.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start a &amp;recording</source>
        <translation>Démarrer une &amp;acquisition</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start an empty workspace in a file of its own.</source>
        <translation>Commencer un espace de travail vide dans son propre fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Steps with checks for the chosen device, one after the other, and a report.</source>
        <translation>Des étapes avec contrôles pour l&apos;appareil choisi, l&apos;une après l&apos;autre, et un procès-verbal.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Support &amp;bundle...</source>
        <translation>Dossier de &amp;support...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>System</source>
        <translation>Système</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take back what was added, changed or removed last.</source>
        <translation>Revenir sur le dernier ajout, changement ou retrait.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take the chart that is shown away. Its samples stay in the log.</source>
        <translation>Retirer le graphique affiché. Ses échantillons restent dans le journal.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this device off the list. Its log stays.</source>
        <translation>Retirer cet appareil de la liste. Son journal reste.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this way to {device} off the list; the way in use stays.</source>
        <translation>Retirer de la liste cette voie vers {device} ; la voie utilisée le reste.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Test a meter against a reference: errors, uncertainty and verdict by class.</source>
        <translation>Essayer un compteur contre un étalon : erreurs, incertitude et verdict par classe.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The chart as large as it can be.</source>
        <translation>Le graphique aussi grand que possible.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already closed.</source>
        <translation>La liaison est déjà fermée.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already open.</source>
        <translation>La liaison est déjà ouverte.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The log and the details of one interaction.</source>
        <translation>Le journal et les détails d&apos;une interaction.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The minutes in which may be written begin anew.</source>
        <translation>Les minutes pendant lesquelles on peut écrire repartent de zéro.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The only way to {device} so far.</source>
        <translation>La seule voie vers {device} pour l&apos;instant.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The program&apos;s own log and its crash reports.</source>
        <translation>Le journal du programme lui-même et ses rapports d&apos;incident.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The same curves, axes and range of time once more.</source>
        <translation>Les mêmes courbes, axes et plage de temps une fois de plus.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The six fixed steps that put a prepaid meter into service.</source>
        <translation>Les six étapes fixes qui mettent en service un compteur à prépaiement.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is no chart yet.</source>
        <translation>Il n&apos;y a pas encore de graphique.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is nothing to undo.</source>
        <translation>Il n&apos;y a rien à annuler.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is only this chart; one stays.</source>
        <translation>Il n&apos;y a que ce graphique ; il en reste toujours un.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay. Open the log for reading to check it.</source>
        <translation>Ceci est une relecture. Ouvrez le journal en lecture pour le vérifier.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay; nothing can be sent or changed.</source>
        <translation>Ceci est une relecture ; rien ne peut être envoyé ni modifié.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This log is open for reading only.</source>
        <translation>Ce journal est ouvert en lecture seule.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Version, licence and the folders in use.</source>
        <translation>Version, licence et dossiers utilisés.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Versions, settings and checks of this computer; secrets are left out.</source>
        <translation>Versions, préférences et contrôles de cet ordinateur ; les secrets sont omis.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Watch a kept log again as if it were live. Nothing is sent to a meter.</source>
        <translation>Revoir un journal conservé comme s&apos;il était en direct. Rien n&apos;est envoyé à un compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What a DLMS meter holds, by class or by OBIS code.</source>
        <translation>Ce que contient un compteur DLMS, par classe ou par code OBIS.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What differs between two logs, meters or readings.</source>
        <translation>Ce qui diffère entre deux journaux, compteurs ou relevés.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write a note at the time under the pointer, at cursor A, or in the middle.</source>
        <translation>Écrire une note à l&apos;instant sous le pointeur, au curseur A ou au milieu.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write interactions to a file for others; secrets are left out.</source>
        <translation>Écrire des interactions dans un fichier à transmettre ; les secrets sont omis.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write what is filtered to a file for others, with names replaced.</source>
        <translation>Écrire ce qui est filtré dans un fichier à transmettre, noms remplacés.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a gateway; choose one.</source>
        <translation>{name} n&apos;est pas une passerelle ; choisissez-en une.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a grid; choose one.</source>
        <translation>{name} n&apos;est pas un réseau électrique ; choisissez-en un.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a meter; choose one.</source>
        <translation>{name} n&apos;est pas un compteur ; choisissez-en un.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} only groups others; choose a meter or gateway.</source>
        <translation>{name} ne fait que regrouper d&apos;autres appareils ; choisissez un compteur ou une passerelle.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{text} to {device}</source>
        <translation>{text} vers {device}</translation>
    </message>
</context>
<context>
    <name>Actor</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>app</source>
        <translation>programme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>batch</source>
        <translation>lot</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>command line</source>
        <translation>ligne de commande</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>commissioning</source>
        <translation>mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>flow</source>
        <translation>procédure</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>follow up</source>
        <translation>suite</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gatekeeper</source>
        <translation>contrôle d&apos;envoi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>import</source>
        <translation>importation</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>order</source>
        <translation>ordre</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reconciler</source>
        <translation>rapprochement</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>replay</source>
        <translation>relecture</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tour</source>
        <translation>visite</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>examen après coup</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>non sollicité</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>user</source>
        <translation>utilisateur</translation>
    </message>
</context>
<context>
    <name>AddressField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered in the form of a new device that connects to this computer; what is set up stays</source>
        <translation>Proposée dans le formulaire d&apos;un nouvel appareil qui se connecte à cet ordinateur ; ce qui est déjà configuré reste</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Type the name or address of this computer.</source>
        <translation>Saisissez le nom ou l&apos;adresse de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>every network of this computer</source>
        <translation>tous les réseaux de cet ordinateur</translation>
    </message>
</context>
<context>
    <name>Arming</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Arm for {n} min and {verb}</source>
        <translation>Armer pour {n} min : {verb}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed</source>
        <translation>Armé</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only read</source>
        <translation>Lire seulement</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only reading is allowed now.</source>
        <translation>Seule la lecture est permise maintenant.</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Read only</source>
        <translation>Lecture seule</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>This changes something on a meter, and writing is not armed or its time is over.</source>
        <translation>Ceci modifie quelque chose sur un compteur, et l&apos;écriture n&apos;est pas armée ou son temps est écoulé.</translation>
    </message>
</context>
<context>
    <name>ArmingSwitch</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>&amp;Arm writing for {n} min</source>
        <translation>&amp;Armer l&apos;écriture pour {n} min</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed {minutes}:{seconds}</source>
        <translation>Armé {minutes}:{seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Re&amp;ad only from now on</source>
        <translation>&amp;Lecture seule dès maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>S&amp;tay armed for {n} min from now</source>
        <translation>&amp;Rester armé {n} min à partir de maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Stay armed</source>
        <translation>Rester armé</translation>
    </message>
</context>
<context>
    <name>Arrivals</name>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>No link is opened by this, and it can be undone.</source>
        <translation>Aucune liaison n&apos;est ouverte par cette action, et elle peut être annulée.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>One log is open at a time: {name}. The {n} others were left alone.</source>
        <translation>
            <numerusform>Un seul journal est ouvert à la fois : {name}. L&apos;autre ({n}) n&apos;a pas été touché.</numerusform>
            <numerusform>Un seul journal est ouvert à la fois : {name}. Les {n} autres n&apos;ont pas été touchés.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices</source>
        <translation>
            <numerusform>Lire {n} appareil</numerusform>
            <numerusform>Lire {n} appareils</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices from {name} into this workspace?</source>
        <translation>
            <numerusform>Lire {n} appareil de {name} dans cet espace de travail ?</numerusform>
            <numerusform>Lire {n} appareils de {name} dans cet espace de travail ?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>Site file {name}</source>
        <translation>Fichier de site {name}</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} cannot be read ({why}). Check that it is still there and may be read.</source>
        <translation>{name} ne peut pas être lu ({why}). Vérifiez qu&apos;il est toujours là et que la lecture en est permise.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} has nothing new: all {n} of its devices stand in this workspace as they are there.</source>
        <translation>{name} n&apos;apporte rien de nouveau : ses {n} appareils figurent déjà à l&apos;identique dans cet espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is a site file. Open or make a workspace first, then drop it again.</source>
        <translation>{name} est un fichier de site. Ouvrez ou créez d&apos;abord un espace de travail, puis déposez-le à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is nothing that can be opened here. A workspace or log (*.mwk, *.jsonl, *.csv), a site file (*.toml, *.csv) or a batch (*.csv, *.xlsx) can.</source>
        <translation>{name} ne peut pas être ouvert ici. Un espace de travail ou un journal (*.mwk, *.jsonl, *.csv), un fichier de site (*.toml, *.csv) ou un lot (*.csv, *.xlsx) le peut.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} read</source>
        <translation>
            <numerusform>{n} appareil de {name} lu</numerusform>
            <numerusform>{n} appareils de {name} lus</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} were read.</source>
        <translation>
            <numerusform>{n} appareil de {name} a été lu.</numerusform>
            <numerusform>{n} appareils de {name} ont été lus.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{n} of {all} devices of {name} were read. {why}</source>
        <translation>{n} appareils sur {all} de {name} ont été lus. {why}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} stand in this workspace already and get the settings of the file: {names}.</source>
        <translation>
            <numerusform>{n} est déjà dans cet espace de travail et reçoit les réglages du fichier : {names}.</numerusform>
            <numerusform>{n} sont déjà dans cet espace de travail et reçoivent les réglages du fichier : {names}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Bar</name>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 day</source>
        <translation>1 jour</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 h</source>
        <translation>1 h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 min</source>
        <translation>1 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 s</source>
        <translation>1 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 week</source>
        <translation>1 semaine</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>10 s</source>
        <translation>10 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>15 min</source>
        <translation>15 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>5 min</source>
        <translation>5 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>6 h</source>
        <translation>6 h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Clock</source>
        <translation>Horloge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor A</source>
        <translation>Curseur A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor B</source>
        <translation>Curseur B</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Export</source>
        <translation>Exporter</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Fit</source>
        <translation>Ajuster</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Follow</source>
        <translation>Suivre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Hold the picture; samples keep arriving (Space)</source>
        <translation>Figer l&apos;image ; les échantillons continuent d&apos;arriver (Espace)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>No cursors</source>
        <translation>Sans curseurs</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Note</source>
        <translation>Note</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Pause</source>
        <translation>Pause</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Paused, {0} behind. Follow (Space)</source>
        <translation>En pause, retard {0}. Suivre (Espace)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place A in the middle, or under the pointer with the key A; drag to move</source>
        <translation>Placer A au milieu, ou sous le pointeur avec la touche A ; glisser pour déplacer</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place B in the middle, or under the pointer with the key B; drag to move</source>
        <translation>Placer B au milieu, ou sous le pointeur avec la touche B ; glisser pour déplacer</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Show everything there is (F)</source>
        <translation>Montrer tout ce qu&apos;il y a (F)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of the meter</source>
        <translation>Heure du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of this computer</source>
        <translation>Heure de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time since the first sample</source>
        <translation>Temps depuis le premier échantillon</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Width of the time axis</source>
        <translation>Largeur de l&apos;axe du temps</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Write a note at cursor A or in the middle, or under the pointer with the key N</source>
        <translation>Écrire une note au curseur A ou au milieu, ou sous le pointeur avec la touche N</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Writing…</source>
        <translation>Écriture…</translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Interaction</source>
        <translation>Interaction</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Line</source>
        <translation>Ligne</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Meter</source>
        <translation>Compteur</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Took</source>
        <translation>Durée</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>What is wrong</source>
        <translation>Ce qui ne va pas</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Why</source>
        <translation>Pourquoi</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>all done</source>
        <translation>tout terminé</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>can be sent</source>
        <translation>peut être envoyé</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>left out</source>
        <translation>omis</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>not all done</source>
        <translation>pas tout terminé</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>step {n} of {total}</source>
        <translation>étape {n} sur {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>stopped</source>
        <translation>arrêté</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>under way</source>
        <translation>en cours</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>{done} of {total} done</source>
        <translation>{done} terminés sur {total}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} failed</source>
        <translation>
            <numerusform>{n} en échec</numerusform>
            <numerusform>{n} en échec</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} replaced</source>
        <translation>
            <numerusform>{n} remplacé</numerusform>
            <numerusform>{n} remplacés</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} under way</source>
        <translation>
            <numerusform>{n} en cours</numerusform>
            <numerusform>{n} en cours</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} waiting</source>
        <translation>
            <numerusform>{n} en attente</numerusform>
            <numerusform>{n} en attente</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BatchPanel</name>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>&amp;Leave out lines with faults</source>
        <translation>&amp;Omettre les lignes en défaut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>, {n} with a fault</source>
        <translation>, {n} avec un défaut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>A new batch of those that failed. What may have taken effect unseen is left out.</source>
        <translation>Un nouveau lot de ceux en échec. Ce qui a pu prendre effet sans être vu est omis.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch</source>
        <translation>Lot</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch {id}: {title}</source>
        <translation>Lot {id} : {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batches</source>
        <translation>Lots</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Begin with the meters: choose them in the tree, or import a list. Nothing is sent yet.</source>
        <translation>Commencez par les compteurs : choisissez-les dans l&apos;arborescence, ou importez une liste. Rien n&apos;est encore envoyé.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>CSV or XLSX: a column device (id, serial number or name), and the parameters by name or title.</source>
        <translation>CSV ou XLSX : une colonne device (identifiant, numéro de série ou nom), et les paramètres par nom ou titre.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose a command or a flow</source>
        <translation>Choisissez une commande ou une procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose several meters in the tree, or all that match a filter there.</source>
        <translation>Choisissez plusieurs compteurs dans l&apos;arborescence, ou tous ceux qui y correspondent à un filtre.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Column {name}: {why}</source>
        <translation>Colonne {name} : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Command or flow</source>
        <translation>Commande ou procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Flow: {title}</source>
        <translation>Procédure : {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Give up the rest</source>
        <translation>Abandonner le reste</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on</source>
        <translation>Reprendre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on with batch {id}</source>
        <translation>Reprendre le lot {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go to the first fault</source>
        <translation>Aller au premier défaut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list</source>
        <translation>Importer une liste</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list…</source>
        <translation>Importer une liste…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It changes something: {list}.</source>
        <translation>Modifie quelque chose : {list}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It is given once more to: {devices}.</source>
        <translation>Donné une fois de plus à : {devices}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Lists of devices (*.csv *.xlsx)</source>
        <translation>Listes d&apos;appareils (*.csv *.xlsx)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members of the batch</source>
        <translation>Membres du lot</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members that have ended</source>
        <translation>Membres terminés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>New batch</source>
        <translation>Nouveau lot</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it can be tried again. {why}</source>
        <translation>Rien ne peut en être réessayé. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it has been sent.</source>
        <translation>Rien n&apos;en a été envoyé.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Save report…</source>
        <translation>Enregistrer le procès-verbal…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Send</source>
        <translation>Envoyer</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Send to {n} meters</source>
        <translation>
            <numerusform>Envoyer à {n} compteur</numerusform>
            <numerusform>Envoyer à {n} compteurs</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Start the batch</source>
        <translation>Démarrer le lot</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Start {flow} on {n} meters</source>
        <translation>
            <numerusform>Démarrer {flow} sur {n} compteur</numerusform>
            <numerusform>Démarrer {flow} sur {n} compteurs</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Stop</source>
        <translation>Arrêter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Take the chosen meters</source>
        <translation>Prendre les compteurs choisis</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Take {n} chosen meters</source>
        <translation>
            <numerusform>Prendre {n} compteur choisi</numerusform>
            <numerusform>Prendre {n} compteurs choisis</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>The commands of the list</source>
        <translation>Les commandes de la liste</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again</source>
        <translation>Réessayer les échecs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again…</source>
        <translation>Réessayer les échecs…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try {n} again</source>
        <translation>Réessayer {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Undo import</source>
        <translation>Annuler l&apos;importation</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Wh&amp;at</source>
        <translation>&amp;Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What has not left is called back. What has left comes to its end by itself.</source>
        <translation>Ce qui n&apos;est pas parti est rappelé. Ce qui est parti s&apos;achève de lui-même.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back counts as failed.</source>
        <translation>Ce qui a été rappelé compte comme échec.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back is sent now, each once.</source>
        <translation>Ce qui a été rappelé est envoyé maintenant, une fois chacun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What would be sent to each meter</source>
        <translation>Ce qui serait envoyé à chaque compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>began {time}</source>
        <translation>commencé {time}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>line {n}</source>
        <translation>ligne {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>tries again what failed in batch {id}</source>
        <translation>réessaie les échecs du lot {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>{names} and {n} more</source>
        <translation>{names} et {n} de plus</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{name}: {n} meters</source>
        <translation>
            <numerusform>{name} : {n} compteur</numerusform>
            <numerusform>{name} : {n} compteurs</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{n} chosen meters</source>
        <translation>
            <numerusform>{n} compteur choisi</numerusform>
            <numerusform>{n} compteurs choisis</numerusform>
        </translation>
    </message>
    <message>
        <source>{n} more.</source>
        <translation type="vanished">{n} de plus.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{what} on {n} meters</source>
        <translation>
            <numerusform>{what} sur {n} compteur</numerusform>
            <numerusform>{what} sur {n} compteurs</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BytesTab</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes from {link}</source>
        <translation>
            <numerusform>%n octet de {link}</numerusform>
            <numerusform>%n octets de {link}</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes to {link}</source>
        <translation>
            <numerusform>%n octet vers {link}</numerusform>
            <numerusform>%n octets vers {link}</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>&amp;Follow</source>
        <translation>&amp;Suivre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>All bytes of this link before and behind these, in their order.</source>
        <translation>Tous les octets de cette liaison avant et après ceux-ci, dans leur ordre.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>As text</source>
        <translation>En texte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes as text</source>
        <translation>Octets en texte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Decoded answer</source>
        <translation>Réponse décodée</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Frames</source>
        <translation>Trames</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Link</source>
        <translation>Liaison</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No bytes yet. They appear here as soon as the first frame leaves or arrives.</source>
        <translation>Pas encore d&apos;octets. Ils apparaissent ici dès que la première trame part ou arrive.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Octets</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Part</source>
        <translation>Partie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Parts of the frame</source>
        <translation>Parties de la trame</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Tentative</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Way</source>
        <translation>Sens</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>body</source>
        <translation>corps</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>first line</source>
        <translation>première ligne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>headers</source>
        <translation>en-têtes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{text}, cut off: the log keeps the first part</source>
        <translation>{text}, tronqué : le journal garde la première partie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>← in</source>
        <translation>← entrant</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>→ out</source>
        <translation>→ sortant</translation>
    </message>
</context>
<context>
    <name>Caretaker</name>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Another Meterwright with this profile (process {number}) does not answer. End it, or start this one with a profile of its own: --profile FOLDER.</source>
        <translation>Un autre Meterwright avec ce profil (processus {number}) ne répond pas. Terminez-le, ou lancez celui-ci avec son propre profil : --profile FOLDER.</translation>
    </message>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Meterwright was killed by a fault last time. What is known of it is in {file}.</source>
        <translation>Meterwright a été arrêté par un défaut la dernière fois. Ce qui en est connu se trouve dans {file}.</translation>
    </message>
</context>
<context>
    <name>ChartBook</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>All charts show the same range of time and move together</source>
        <translation>Tous les graphiques montrent la même plage de temps et se déplacent ensemble</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Another chart beside these (Ctrl+T)</source>
        <translation>Un graphique de plus à côté de ceux-ci (Ctrl+T)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart</source>
        <translation>Graphique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart {name}</source>
        <translation>Graphique {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Duplicate</source>
        <translation>Dupliquer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>End the recording {name} (Ctrl+R)</source>
        <translation>Terminer l&apos;acquisition {name} (Ctrl+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Give the time from now on a name (Ctrl+R)</source>
        <translation>Donner un nom à la période qui commence (Ctrl+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Lab</source>
        <translation>Labo</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>New chart</source>
        <translation>Nouveau graphique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Notes, thresholds, derived quantities and references</source>
        <translation>Notes, seuils, grandeurs dérivées et références</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Record</source>
        <translation>Acquérir</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Rename</source>
        <translation>Renommer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Same time</source>
        <translation>Même heure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Stop {elapsed}</source>
        <translation>Arrêter {elapsed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>The chart was written to {path}.</source>
        <translation>Le graphique a été écrit dans {path}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>There are {n} charts, which is the most: close one that is no longer needed.</source>
        <translation>Il y a {n} graphiques, c&apos;est le maximum : fermez-en un devenu inutile.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>This is the only chart; one stays. Its curves can be taken off.</source>
        <translation>C&apos;est le seul graphique ; il en reste toujours un. Ses courbes peuvent être retirées.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>the reference of {source} added</source>
        <translation>la référence de {source} ajoutée</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} added</source>
        <translation>{name} ajouté</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} closed</source>
        <translation>{name} fermé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} copy</source>
        <translation>{name} copie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{old} renamed to {new}</source>
        <translation>{old} renommé en {new}</translation>
    </message>
</context>
<context>
    <name>ChartTabs</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Charts</source>
        <translation>Graphiques</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart</source>
        <translation>Fermer ce graphique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart (Ctrl+W)</source>
        <translation>Fermer ce graphique (Ctrl+W)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves</source>
        <translation>Courbes</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves, statistics and samples</source>
        <translation>Courbes, statistiques et échantillons</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Statistics</source>
        <translation>Statistiques</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Table</source>
        <translation>Tableau</translation>
    </message>
</context>
<context>
    <name>Check</name>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>answer</source>
        <translation>réponse</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>bytes</source>
        <translation>octets</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>decoded</source>
        <translation>décodé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>end</source>
        <translation>fin</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}</source>
        <translation>trame {frame}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}, byte {offset}</source>
        <translation>trame {frame}, octet {offset}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>not recorded</source>
        <translation>non enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>reason</source>
        <translation>motif</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>status</source>
        <translation>statut</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>verdict</source>
        <translation>verdict</translation>
    </message>
</context>
<context>
    <name>CheckDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>%n differences.</source>
        <translation>
            <numerusform>%n différence.</numerusform>
            <numerusform>%n différences.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>&amp;Open the command</source>
        <translation>&amp;Ouvrir la commande</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Check {name}</source>
        <translation>Vérifier {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking…</source>
        <translation>Vérification…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking… %n differences so far.</source>
        <translation>
            <numerusform>Vérification… %n différence jusqu&apos;ici.</numerusform>
            <numerusform>Vérification… %n différences jusqu&apos;ici.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Differences</source>
        <translation>Différences</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>It was stopped. %n differences until then.</source>
        <translation>
            <numerusform>Arrêtée. %n différence jusque-là.</numerusform>
            <numerusform>Arrêtée. %n différences jusque-là.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No difference: everything is as it was recorded.</source>
        <translation>Aucune différence : tout est comme enregistré.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Now</source>
        <translation>Maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Recorded</source>
        <translation>Enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Result of the check</source>
        <translation>Résultat de la vérification</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stop the check</source>
        <translation>Arrêter la vérification</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stopping…</source>
        <translation>Arrêt en cours…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The difference in words</source>
        <translation>La différence en mots</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is being checked</source>
        <translation>Le journal est en cours de vérification</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is replayed without any meter: bytes, verdicts, ends of commands and decoded answers are compared with what was recorded. Nothing in it is changed.</source>
        <translation>Le journal est relu sans aucun compteur : octets, verdicts, fins des commandes et réponses décodées sont comparés à ce qui a été enregistré. Rien n&apos;y est modifié.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>There are more than {n} differences; the others are not shown.</source>
        <translation>Il y a plus de {n} différences ; les autres ne sont pas affichées.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Where</source>
        <translation>Où</translation>
    </message>
</context>
<context>
    <name>Clock</name>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It gains {span} a day.</source>
        <translation>Elle avance de {span} par jour.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It keeps the same distance.</source>
        <translation>Elle garde le même écart.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It loses {span} a day.</source>
        <translation>Elle retarde de {span} par jour.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The answer does not tell how far the clock is off. Read the clock again.</source>
        <translation>La réponse n&apos;indique pas l&apos;écart de l&apos;horloge. Lisez l&apos;horloge à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is far off: tariffs and load profile fall into wrong periods. Set it.</source>
        <translation>L&apos;horloge du compteur est très décalée : tarifs et courbe de charge tombent dans de mauvaises périodes. Mettez-la à l&apos;heure.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is off. Set it before its load profile is used for billing.</source>
        <translation>L&apos;horloge du compteur est décalée. Mettez-la à l&apos;heure avant que sa courbe de charge serve à la facturation.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is right.</source>
        <translation>L&apos;horloge du compteur est juste.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>drift not told</source>
        <translation>dérive inconnue</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>far off</source>
        <translation>très décalée</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>no drift</source>
        <translation>aucune dérive</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>off</source>
        <translation>décalée</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>right</source>
        <translation>juste</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} ahead</source>
        <translation>{span} d&apos;avance</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} behind</source>
        <translation>{span} de retard</translation>
    </message>
</context>
<context>
    <name>ClockView</name>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Clock of the meter</source>
        <translation>Horloge du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Drift</source>
        <translation>Dérive</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Earlier readings of the clock</source>
        <translation>Lectures antérieures de l&apos;horloge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter</source>
        <translation>Compteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter after</source>
        <translation>Compteur après</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter before</source>
        <translation>Compteur avant</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Set clock…</source>
        <translation>Mettre à l&apos;heure…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>This computer then</source>
        <translation>Cet ordinateur alors</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time of the meter</source>
        <translation>Heure du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>What</source>
        <translation>Action</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>read</source>
        <translation>lecture</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>set</source>
        <translation>mise à l&apos;heure</translation>
    </message>
</context>
<context>
    <name>ColourButton</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply earlier</source>
        <translation>Appliquer plus tôt</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply later</source>
        <translation>Appliquer plus tard</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour and mark the rows that match a filter</source>
        <translation>Colorer et marquer les lignes qui correspondent à un filtre</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour what the filter shows</source>
        <translation>Colorer ce que montre le filtre</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colours</source>
        <translation>Couleurs</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>No rows are coloured yet</source>
        <translation>Aucune ligne n&apos;est encore colorée</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Remove</source>
        <translation>Retirer</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Show what it colours</source>
        <translation>Montrer ce qu&apos;elle colore</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>The colours could not be saved. {why}</source>
        <translation>Les couleurs n&apos;ont pas pu être enregistrées. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Undo: {what}</source>
        <translation>Annuler : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>colour {name}</source>
        <translation>colorer {name}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>move {name}</source>
        <translation>déplacer {name}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>remove {name}</source>
        <translation>retirer {name}</translation>
    </message>
</context>
<context>
    <name>Command</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Connect it first.</source>
        <translation>Connectez-le d&apos;abord.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing can be sent from here: this is a recording, or a log opened for reading.</source>
        <translation>Rien ne peut être envoyé d&apos;ici : ceci est une relecture, ou un journal ouvert en lecture.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} has no such command.</source>
        <translation>{name} n&apos;a pas cette commande.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} is not connected. {why}</source>
        <translation>{name} n&apos;est pas connecté. {why}</translation>
    </message>
</context>
<context>
    <name>CommandPalette</name>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>An action, a device, or a command and a device</source>
        <translation>Une action, un appareil, ou une commande et un appareil</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Command palette</source>
        <translation>Palette de commandes</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Go to {name}</source>
        <translation>Aller à {name}</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Rien ne correspond. Essayez avec moins de lettres.</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Results</source>
        <translation>Résultats</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>What do you want to do?</source>
        <translation>Que voulez-vous faire ?</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>{command} on {device}</source>
        <translation>{command} sur {device}</translation>
    </message>
</context>
<context>
    <name>CommandPanel</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Commands</source>
        <translation>Commandes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Control</source>
        <translation>Pilotage</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Credit and tokens</source>
        <translation>Crédit et jetons</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked first.</source>
        <translation>Dangereux. Une confirmation vous sera demandée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked for the serial number.</source>
        <translation>Dangereux. Le numéro de série vous sera demandé.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Edit as rows…</source>
        <translation>Modifier en lignes…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see what it can be told.</source>
        <translation>Aucun compteur choisi.
Choisissez-en un dans l&apos;arborescence à gauche pour voir ce qu&apos;on peut lui commander.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Not on this meter</source>
        <translation>Pas sur ce compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing to fill in.</source>
        <translation>Rien à remplir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Rien n&apos;a été envoyé. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent: correct what is marked above.</source>
        <translation>Rien n&apos;a été envoyé : corrigez ce qui est signalé ci-dessus.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Only reads.</source>
        <translation>Lecture seule.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Open issue: {what}</source>
        <translation>Problème ouvert : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Outcome of the last command</source>
        <translation>Issue de la dernière commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Read</source>
        <translation>Lire</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}, waiting at the gatekeeper.</source>
        <translation>Enregistré sous {link}, en attente au contrôle d&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}: {status}.</source>
        <translation>Enregistré sous {link} : {status}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Search commands</source>
        <translation>Rechercher des commandes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter accepted the token.</source>
        <translation>Le compteur a accepté le jeton.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter refused the token.</source>
        <translation>Le compteur a refusé le jeton.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Write</source>
        <translation>Écriture</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Writes to the meter. You will be asked first.</source>
        <translation>Écrit dans le compteur. Une confirmation vous sera demandée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{command}: {device}</source>
        <translation>{command} : {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{link}: {status}.</source>
        <translation>{link} : {status}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} takes no commands itself.
Choose a meter or a gateway below it.</source>
        <translation>{name} ne prend pas de commandes.
Choisissez un compteur ou une passerelle en dessous.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{n} open issues: {what}</source>
        <translation>{n} problèmes ouverts : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, busy with {what}</source>
        <translation>{state}, occupé par {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, last heard {time}</source>
        <translation>{state}, entendu pour la dernière fois {time}</translation>
    </message>
</context>
<context>
    <name>CommandQuestion</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>(not shown)</source>
        <translation>(non affiché)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Meter</source>
        <translation>Compteur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Serial number of the meter</source>
        <translation>Numéro de série du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Type the {what} {serial} to go on.</source>
        <translation>Pour continuer, saisissez {what} {serial}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>id</source>
        <translation>l&apos;identifiant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>left to the program</source>
        <translation>laissé au programme</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>serial number</source>
        <translation>le numéro de série</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, numéro de série {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} now</source>
        <translation>{what} maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} then</source>
        <translation>{what} alors</translation>
    </message>
</context>
<context>
    <name>Commissioning</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>(unit unknown)</source>
        <translation>(unité inconnue)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>All steps are done.</source>
        <translation>Toutes les étapes sont terminées.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}, with something to look at. {warnings}</source>
        <translation>Mis en service en {span}, avec des points à examiner. {warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}.</source>
        <translation>Mis en service en {span}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Ended at step {number}, {step}, after {span}. {why}</source>
        <translation>Terminé à l&apos;étape {number}, {step}, après {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed after {span}. {why}</source>
        <translation>Échec après {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed at step {number}, {step}, after {span}. {why}</source>
        <translation>Échec à l&apos;étape {number}, {step}, après {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Registration</source>
        <translation>Enregistrement chez le fournisseur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number} waits: {why}</source>
        <translation>L&apos;étape {number} attend : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is next.</source>
        <translation>L&apos;étape {number}, {step}, est la suivante.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is on its way to the meter.</source>
        <translation>L&apos;étape {number}, {step}, est en route vers le compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is queued.</source>
        <translation>L&apos;étape {number}, {step}, est en file d&apos;attente.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}: {warning}</source>
        <translation>Étape {number} : {warning}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The meter is being registered. {why}</source>
        <translation>Le compteur est en cours d&apos;enregistrement. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The registration failed after {span}. {why}</source>
        <translation>L&apos;enregistrement du compteur a échoué après {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting for the vendor to register the meter. Say below what came of it.</source>
        <translation>En attente de l&apos;enregistrement du compteur par le fournisseur. Indiquez ci-dessous ce qu&apos;il en est.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting to hear from the meter: it reports every hour. {why}</source>
        <translation>En attente d&apos;un signe du compteur : il se signale toutes les heures. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>not run</source>
        <translation>pas exécuté</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token accepted</source>
        <translation>jeton accepté</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token refused</source>
        <translation>jeton refusé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>waits for its turn</source>
        <translation>attend son tour</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{limit} = no limit</source>
        <translation>{limit} = aucune limite</translation>
    </message>
</context>
<context>
    <name>CommissioningPanel</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>A new run from the first step.</source>
        <translation>Une nouvelle exécution depuis la première étape.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device}</source>
        <translation>Mettre {device} en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device} again</source>
        <translation>Remettre {device} en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning</source>
        <translation>Mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning of {name}</source>
        <translation>Mise en service de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Everything that waits for this meter is given up, and it no longer belongs to its connection.</source>
        <translation>Tout ce qui attend ce compteur est abandonné, et il n&apos;appartient plus à sa connexion.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Has the vendor registered the meter?</source>
        <translation>Le fournisseur a-t-il enregistré le compteur ?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Interaction</source>
        <translation>Interaction</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark as failed</source>
        <translation>Marquer comme échec</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark the commissioning of {device} as failed</source>
        <translation>Marquer la mise en service de {device} comme échec</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Never commissioned from here. Commissioning clears tamper and credit, sets the power limit, reads voltage and power, and adds the initial credit of the grid.</source>
        <translation>Jamais mis en service d&apos;ici. La mise en service efface fraude et crédit, règle la limite de puissance, lit tension et puissance, et ajoute le crédit initial du réseau électrique.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see or start its commissioning.</source>
        <translation>Aucun compteur choisi.
Choisissez-en un dans l&apos;arborescence à gauche pour voir ou démarrer sa mise en service.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No, it was refused</source>
        <translation>Non, il a été refusé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Note</source>
        <translation>Note</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Once it is under way: possible after 2 hours without progress.</source>
        <translation>Une fois en cours : possible après 2 heures sans progrès.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and commission {device}</source>
        <translation>Enregistrer et mettre {device} en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and start</source>
        <translation>Enregistrer et démarrer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Show interaction {id}</source>
        <translation>Afficher l&apos;interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Start commissioning</source>
        <translation>Démarrer la mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step</source>
        <translation>Étape</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps of the commissioning</source>
        <translation>Étapes de la mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps that still wait are given up. A step that is on its way may still reach the meter.</source>
        <translation>Les étapes encore en attente sont abandonnées. Une étape en cours d&apos;envoi peut encore atteindre le compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The credit on the meter is cleared: what the customer has bought and not used is lost. Then the tamper state is cleared and the power limit is set.</source>
        <translation>Le crédit du compteur est effacé : ce que le client a acheté et n&apos;a pas utilisé est perdu. L&apos;état de fraude est ensuite effacé et la limite de puissance réglée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Try again</source>
        <translation>Réessayer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall</source>
        <translation>Désinstaller</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall {device}</source>
        <translation>Désinstaller {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall…</source>
        <translation>Désinstaller…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Yes, it is registered</source>
        <translation>Oui, il est enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>began {time}, by {who}</source>
        <translation>commencé {time}, par {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not a meter.
Choose a meter below it to see or start its commissioning.</source>
        <translation>{name} n&apos;est pas un compteur.
Choisissez un compteur en dessous pour voir ou démarrer sa mise en service.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not commissioned from here.
Commissioning sends tokens that clear tamper and credit, and this meter takes none.</source>
        <translation>{name} n&apos;est pas mis en service d&apos;ici.
La mise en service envoie des jetons qui effacent fraude et crédit, et ce compteur n&apos;en prend aucun.</translation>
    </message>
</context>
<context>
    <name>Compare</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>attempts</source>
        <translation>tentatives</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>duration</source>
        <translation>durée</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>not there</source>
        <translation>absent</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>nothing</source>
        <translation>rien</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>only on one side</source>
        <translation>d&apos;un seul côté</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>parameter</source>
        <translation>paramètre</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>reason</source>
        <translation>motif</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>result</source>
        <translation>résultat</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>status</source>
        <translation>statut</translation>
    </message>
</context>
<context>
    <name>ComparePanel</name>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source> s</source>
        <translation> s</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>&amp;Durations differ from</source>
        <translation>Les &amp;durées diffèrent à partir de</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A duration differs when it is longer by this much, and twice as long.</source>
        <translation>Une durée diffère si elle est plus longue d&apos;autant, et deux fois plus longue.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A workspace or an export; it is only read.</source>
        <translation>Un espace de travail ou un export ; il est seulement lu.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>CSV (*.csv)</source>
        <translation>CSV (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose a device on both sides.</source>
        <translation>Choisissez un appareil de chaque côté.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file: a log does not differ from itself.</source>
        <translation>Choisissez l&apos;autre fichier : un journal ne diffère pas de lui-même.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file…</source>
        <translation>Choisir l&apos;autre fichier…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different devices, or another file.</source>
        <translation>Choisissez deux appareils différents, ou un autre fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different interactions, or another file.</source>
        <translation>Choisissez deux interactions différentes, ou un autre fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Co&amp;mpare</source>
        <translation>Co&amp;mparer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare</source>
        <translation>Comparer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare with</source>
        <translation>Comparer avec</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing</source>
        <translation>Comparaison</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing… nothing differs so far.</source>
        <translation>Comparaison… aucune différence pour l&apos;instant.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Copy row</source>
        <translation>Copier la ligne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device here</source>
        <translation>Appareil ici</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device there</source>
        <translation>Appareil là-bas</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Differences</source>
        <translation>Différences</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export the differences</source>
        <translation>Exporter les différences</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export…</source>
        <translation>Exporter…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Give the number of an interaction on both sides.</source>
        <translation>Indiquez le numéro d&apos;une interaction de chaque côté.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>HTML (*.html)</source>
        <translation>HTML (*.html)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Here</source>
        <translation>Ici</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>How much longer a duration must be to differ</source>
        <translation>De combien une durée doit être plus longue pour différer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction here</source>
        <translation>Interaction ici</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction there</source>
        <translation>Interaction là-bas</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>JSON (*.json)</source>
        <translation>JSON (*.json)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Kind of difference</source>
        <translation>Type de différence</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Logs ({patterns})</source>
        <translation>Journaux ({patterns})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Looking through {name}…</source>
        <translation>Examen de {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>No row is chosen in the log. Choose one there first.</source>
        <translation>Aucune ligne n&apos;est choisie dans le journal. Choisissez-en d&apos;abord une.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>None of the differences matches this filter. Empty the filter to see all.</source>
        <translation>Aucune des différences ne correspond à ce filtre. Videz le filtre pour tout voir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing differs: every command is on both sides with the same end and the same values.</source>
        <translation>Aucune différence : chaque commande figure des deux côtés avec la même issue et les mêmes valeurs.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing was compared: {why}</source>
        <translation>Rien n&apos;a été comparé : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this command: {command}</source>
        <translation>Seulement cette commande : {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this kind: {what}</source>
        <translation>Seulement ce type : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Show interaction {id}</source>
        <translation>Afficher l&apos;interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stop comparing</source>
        <translation>Arrêter la comparaison</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stopped. What was found until then is shown.</source>
        <translation>Arrêté. Ce qui a été trouvé jusque-là est affiché.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take the row chosen in the log</source>
        <translation>Prendre la ligne choisie dans le journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take this log</source>
        <translation>Prendre ce journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>The other file is being opened.</source>
        <translation>L&apos;autre fichier est en cours d&apos;ouverture.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There</source>
        <translation>Là-bas</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There are more: the first {n} are shown.</source>
        <translation>Il y en a davantage : les {n} premières sont affichées.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There is no interaction {n} there.</source>
        <translation>Il n&apos;y a pas d&apos;interaction {n} là-bas.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>This one is only in the other file. Open that one to see its steps.</source>
        <translation>Celle-ci n&apos;est que dans l&apos;autre fichier. Ouvrez-le pour voir ses étapes.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two meters</source>
        <translation>Deux compteurs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two readings</source>
        <translation>Deux relevés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two sessions</source>
        <translation>Deux sessions</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What differs between two logs, two meters or two readings is listed here, aligned by command.
Choose what to compare above.</source>
        <translation>Ce qui diffère entre deux journaux, deux compteurs ou deux relevés est listé ici, aligné par commande.
Choisissez ci-dessus ce qu&apos;il faut comparer.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What is compared</source>
        <translation>Ce qui est comparé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Words that a row must hold</source>
        <translation>Mots qu&apos;une ligne doit contenir</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Write the rows that are shown to a file: CSV, JSON or HTML.</source>
        <translation>Écrire les lignes affichées dans un fichier : CSV, JSON ou HTML.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>every kind</source>
        <translation>tous les types</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log too</source>
        <translation>ce journal aussi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log: {name}</source>
        <translation>ce journal : {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{command} on {device}, {time}, {status}</source>
        <translation>{command} sur {device}, {time}, {status}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences</source>
        <translation>
            <numerusform>{n} différence</numerusform>
            <numerusform>{n} différences</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences were written to {path}.</source>
        <translation>
            <numerusform>{n} différence a été écrite dans {path}.</numerusform>
            <numerusform>{n} différences ont été écrites dans {path}.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} of {total} differences</source>
        <translation>{n} différences sur {total}</translation>
    </message>
</context>
<context>
    <name>ConnectionDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;How is it reached?</source>
        <translation>&amp;Comment est-il joint ?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;Test the connection</source>
        <translation>&amp;Tester la connexion</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connect a meter</source>
        <translation>Connecter un compteur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection</source>
        <translation>Connexion</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}</source>
        <translation>Connexion de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}: {way}</source>
        <translation>Connexion de {name} : {way}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Gateway</source>
        <translation>Passerelle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Grid</source>
        <translation>Réseau électrique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>How the device is reached</source>
        <translation>Comment l&apos;appareil est joint</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Id</source>
        <translation>Identifiant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Keep passwords and keys for this session only</source>
        <translation>Garder mots de passe et clés pour cette session seulement</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Kind</source>
        <translation>Type</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Leave without saving</source>
        <translation>Quitter sans enregistrer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Meter</source>
        <translation>Compteur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Of this meter alone</source>
        <translation>De ce compteur seul</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>One is kept already; type here to replace it.</source>
        <translation>Une valeur est déjà conservée ; saisissez ici pour la remplacer.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Only groups others; it has no connection.</source>
        <translation>Ne fait que regrouper d&apos;autres appareils ; sans connexion.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Otherwise they go to the keyring of this computer. They never stand in the workspace or the log.</source>
        <translation>Sinon, ils vont dans le trousseau de clés de cet ordinateur. Ils ne figurent jamais dans l&apos;espace de travail ni dans le journal.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save the device</source>
        <translation>Enregistrer l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save {name}</source>
        <translation>Enregistrer {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Serial number</source>
        <translation>Numéro de série</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Short and without blanks; used on the command line.</source>
        <translation>Court et sans espaces ; utilisé en ligne de commande.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site</source>
        <translation>Site</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site or grid</source>
        <translation>Site ou réseau électrique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Stands in</source>
        <translation>Rattaché à</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Encore requis : {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The log refers to this id, so it stays.</source>
        <translation>Le journal renvoie à cet identifiant ; il reste donc.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{id} is already the id of {name}.</source>
        <translation>{id} est déjà l&apos;identifiant de {name}.</translation>
    </message>
</context>
<context>
    <name>ConnectionTest</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The connection works.</source>
        <translation>La connexion fonctionne.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The test was stopped.</source>
        <translation>Le test a été arrêté.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>There was no result in {n} s. Check the address and the cable, then test again.</source>
        <translation>Aucun résultat en {n} s. Vérifiez l&apos;adresse et le câble, puis testez à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Trying the connection...</source>
        <translation>Essai de connexion...</translation>
    </message>
</context>
<context>
    <name>ConnectionWizard</name>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>&amp;Back</source>
        <translation>&amp;Retour</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Connect a meter</source>
        <translation>Connecter un compteur</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Enter it by &amp;hand...</source>
        <translation>Le saisir à la &amp;main...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Leave without saving</source>
        <translation>Quitter sans enregistrer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Save</source>
        <translation>Enregistrement</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Search</source>
        <translation>Rechercher</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Test</source>
        <translation>Test</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>The form with every setting; it begins with what is known by now.</source>
        <translation>Le formulaire avec tous les réglages ; il part de ce qui est déjà connu.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Where</source>
        <translation>Où</translation>
    </message>
</context>
<context>
    <name>CrashDialog</name>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Copy the report</source>
        <translation>&amp;Copier le rapport</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Hide the report</source>
        <translation>&amp;Masquer le rapport</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Open its folder</source>
        <translation>&amp;Ouvrir son dossier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Show the report</source>
        <translation>&amp;Afficher le rapport</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program has ended Meterwright.</source>
        <translation>Un défaut du programme a mis fin à Meterwright.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program stopped what it was just doing.</source>
        <translation>Un défaut du programme a interrompu ce qu&apos;il était en train de faire.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Close this message</source>
        <translation>Fermer ce message</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Copied</source>
        <translation>Copié</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Go on working</source>
        <translation>Continuer à travailler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Report</source>
        <translation>Rapport</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Something went wrong in Meterwright</source>
        <translation>Un problème est survenu dans Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The last thing you did may not have happened; the log says what was sent. Everything else goes on. Send the report to whoever looks after Meterwright.</source>
        <translation>Votre dernière action n&apos;a peut-être pas eu lieu ; le journal indique ce qui a été envoyé. Tout le reste continue. Envoyez le rapport à la personne chargée de Meterwright.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The report is in {file}.</source>
        <translation>Le rapport se trouve dans {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The workspace is whole: what was sent stands in its log, and what was under way is looked after at the next start. Send the report to whoever looks after Meterwright.</source>
        <translation>L&apos;espace de travail est intact : ce qui a été envoyé figure dans son journal, et ce qui était en cours sera repris au prochain démarrage. Envoyez le rapport à la personne chargée de Meterwright.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Faults since this message came: {n}; the newest is shown.</source>
        <translation>{text} Défauts depuis ce message : {n} ; le plus récent est affiché.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Passwords, keys and tokens are left out of it.</source>
        <translation>{text} Mots de passe, clés et jetons en sont omis.</translation>
    </message>
</context>
<context>
    <name>CurvePicker</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>– choose –</source>
        <translation>– choisir –</translation>
    </message>
</context>
<context>
    <name>DerivedDialog</name>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Expression</source>
        <translation>&amp;Expression</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Insert a function</source>
        <translation>&amp;Insérer une fonction</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add a derived quantity</source>
        <translation>Ajouter une grandeur dérivée</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add the quantity</source>
        <translation>Ajouter la grandeur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curve of {name}</source>
        <translation>Courbe de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curves of its names</source>
        <translation>Courbes de ses noms</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Decimals shown</source>
        <translation>Décimales affichées</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Derived quantity {name}</source>
        <translation>Grandeur dérivée {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Expression</source>
        <translation>Expression</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>It comes of the curves: {unit}. State another of its kind to have the numbers converted.</source>
        <translation>Elle résulte des courbes : {unit}. Indiquez-en une autre de même nature pour convertir les nombres.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Last value {value}, {time}. Lowest {low}, highest {high} of {count} values.</source>
        <translation>Dernière valeur {value}, {time}. Minimum {low}, maximum {high} sur {count} valeurs.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave as it was</source>
        <translation>Laisser comme avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave without adding</source>
        <translation>Quitter sans ajouter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Left empty, it is the one that comes of the curves.</source>
        <translation>Laissée vide, c&apos;est celle qui résulte des courbes.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Names, numbers, + - * / ** ( ) and functions, as in mean(U * I, 10 s).</source>
        <translation>Noms, nombres, + - * / ** ( ) et fonctions, comme dans mean(U * I, 10 s).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value in the newest {count} samples: the curves are not there at the same time, or the result is not a number.</source>
        <translation>Aucune valeur dans les {count} derniers échantillons : les courbes ne sont pas présentes en même temps, ou le résultat n&apos;est pas un nombre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value yet: there is no sample of {curve}.</source>
        <translation>Pas encore de valeur : aucun échantillon de {curve}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Save the quantity</source>
        <translation>Enregistrer la grandeur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Still needed: {what}.</source>
        <translation>Encore requis : {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The numbers are converted to it.</source>
        <translation>Les nombres y sont convertis.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The result is a pure number.</source>
        <translation>Le résultat est un nombre sans unité.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Unit of the result</source>
        <translation>Unité du résultat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Units are being looked up…</source>
        <translation>Recherche des unités…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Value now</source>
        <translation>Valeur actuelle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>a name</source>
        <translation>un nom</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>an expression</source>
        <translation>une expression</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>angle, in radians</source>
        <translation>angle, en radians</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change per second</source>
        <translation>variation par seconde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change since the sample before</source>
        <translation>variation depuis l&apos;échantillon précédent</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>cosine</source>
        <translation>cosinus</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>error against a reference, in percent</source>
        <translation>erreur par rapport à une référence, en pour cent</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>kept between two limits</source>
        <translation>maintenue entre deux limites</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>last value, however old it is</source>
        <translation>dernière valeur, si ancienne soit-elle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>logarithm to base 10</source>
        <translation>logarithme décimal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>mean of the last 10 s</source>
        <translation>moyenne des 10 dernières s</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sine</source>
        <translation>sinus</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>square root</source>
        <translation>racine carrée</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sum over time: energy of a power</source>
        <translation>somme dans le temps : énergie d&apos;une puissance</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the curve of {name}</source>
        <translation>la courbe de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the larger one</source>
        <translation>la plus grande des deux</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the smaller one</source>
        <translation>la plus petite des deux</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>without its sign</source>
        <translation>sans son signe</translation>
    </message>
</context>
<context>
    <name>DetailPanel</name>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>After</source>
        <translation>Après</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer</source>
        <translation>Réponse</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer: {text}</source>
        <translation>Réponse : {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Applies</source>
        <translation>S&apos;applique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Asks the service that has it to give it back. What has left already cannot be.</source>
        <translation>Demande au service qui la détient de la rendre. Ce qui est déjà parti ne peut plus l&apos;être.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>By</source>
        <translation>Par</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command}</source>
        <translation>Rappeler {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command} again</source>
        <translation>Rappeler {command} à nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Calling {command} back…</source>
        <translation>Rappel de {command}…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Cancel {command}</source>
        <translation>Annuler {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy this line</source>
        <translation>Copier cette ligne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>End</source>
        <translation>Fin</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Event</source>
        <translation>Événement</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>History</source>
        <translation>Historique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Id</source>
        <translation>Identifiant</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction</source>
        <translation>Interaction</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id}</source>
        <translation>Interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>L&apos;interaction {id} n&apos;est pas dans ce journal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled any more: it is on its way to the meter.</source>
        <translation>Elle ne peut plus être annulée : elle est en route vers le compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled: it has ended already.</source>
        <translation>Elle ne peut pas être annulée : elle est déjà terminée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Log of the device</source>
        <translation>Journal de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No answer yet.</source>
        <translation>Pas encore de réponse.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No follow-up, batch or earlier try belongs to it.</source>
        <translation>Aucune suite, aucun lot ni tentative antérieure ne s&apos;y rattache.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No interaction chosen.
Choose one in the log, or send a command, and follow its steps here.</source>
        <translation>Aucune interaction choisie.
Choisissez-en une dans le journal, ou envoyez une commande, et suivez ses étapes ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No rule held it up.</source>
        <translation>Aucune règle ne l&apos;a retenue.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {command} may have happened on {device}, or not.</source>
        <translation>Personne n&apos;a vu ce qui en est résulté : {command} a pu avoir lieu sur {device}, ou non.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or as it was before.</source>
        <translation>Personne n&apos;a vu ce qui en est résulté : {title} de {device} peut valoir {new} maintenant, ou être comme avant.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or still {old}.</source>
        <translation>Personne n&apos;a vu ce qui en est résulté : {title} de {device} peut valoir {new} maintenant, ou encore {old}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not called back: {text}</source>
        <translation>Pas rappelée : {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not tried yet: nothing has left this machine.</source>
        <translation>Pas encore tentée : rien n&apos;a quitté cette machine.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nothing can be sent from here: this log is open for reading only.</source>
        <translation>Rien ne peut être envoyé d&apos;ici : ce journal est ouvert en lecture seule.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Open in Readings</source>
        <translation>Ouvrir dans Relevés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back on {device}: {command}</source>
        <translation>Remettre sur {device} : {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back {value} on {device}</source>
        <translation>Remettre {value} sur {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Read back from {device}</source>
        <translation>Relire depuis {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reading interaction {id}…</source>
        <translation>Lecture de l&apos;interaction {id}…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reference</source>
        <translation>Référence</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related</source>
        <translation>Liées</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related ({count})</source>
        <translation>Liées ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related interactions</source>
        <translation>Interactions liées</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Request</source>
        <translation>Requête</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rule</source>
        <translation>Règle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rules of the gatekeeper</source>
        <translation>Règles du contrôle d&apos;envoi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Say what {device} shows…</source>
        <translation>Dire ce qu&apos;indique {device}…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Show {term} in the log</source>
        <translation>Afficher {term} dans le journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Started</source>
        <translation>Début</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Status</source>
        <translation>Statut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Step</source>
        <translation>Étape</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Steps</source>
        <translation>Étapes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Stop {command}</source>
        <translation>Arrêter {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The device has written no log.</source>
        <translation>L&apos;appareil n&apos;a écrit aucun journal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The log keeps no verdict of the gatekeeper for it.</source>
        <translation>Le journal ne garde pas de verdict du contrôle d&apos;envoi à son sujet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>There is no answer.</source>
        <translation>Il n&apos;y a pas de réponse.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time ({zone})</source>
        <translation>Heure ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Took</source>
        <translation>Durée</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries</source>
        <translation>Tentatives</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries ({count})</source>
        <translation>Tentatives ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Tentative</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try {command} again</source>
        <translation>Réessayer {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Views of the interaction</source>
        <translation>Vues de l&apos;interaction</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What</source>
        <translation>Élément</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What it looked at</source>
        <translation>Ce qu&apos;elle a examiné</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Which rules let it go, held it up or ended it, asked again here.</source>
        <translation>Quelles règles l&apos;ont laissée passer, retenue ou terminée, réinterrogées ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why</source>
        <translation>Pourquoi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why: {reason}</source>
        <translation>Pourquoi : {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>after {span}</source>
        <translation>après {span}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>answered</source>
        <translation>a répondu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>lost when the program ended</source>
        <translation>perdu à la fin du programme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>no</source>
        <translation>non</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>since {time}</source>
        <translation>depuis {time}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>try {number}</source>
        <translation>tentative {number}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>under way</source>
        <translation>en cours</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>yes</source>
        <translation>oui</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} is being called back: what comes of it will stand here.</source>
        <translation>{command} est en cours de rappel : le résultat figurera ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} needs no parameters.</source>
        <translation>{command} ne demande aucun paramètre.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{step}: {text}</source>
        <translation>{step} : {text}</translation>
    </message>
</context>
<context>
    <name>Detection</name>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>No meter answered. Look at the cable, the optical head and the power of the meter, then detect again.</source>
        <translation>Aucun compteur n&apos;a répondu. Vérifiez le câble, la tête optique et l&apos;alimentation du compteur, puis relancez la détection.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>Octets came, but at no rate could they be read. Seat the optical head again, or look whether another program or meter speaks on this line.</source>
        <translation>Des octets sont arrivés, mais n&apos;étaient lisibles à aucun débit. Reposez la tête optique, ou vérifiez si un autre programme ou compteur parle sur cette ligne.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format} in mode {mode}.</source>
        <translation>Le compteur répond à {format} en mode {mode}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format}.</source>
        <translation>Le compteur répond à {format}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>These settings were taken over, and are tried first for this model from now on.</source>
        <translation>Ces réglages ont été repris, et seront désormais essayés en premier pour ce modèle.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by software</source>
        <translation>par logiciel</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by the port</source>
        <translation>par le port</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>found</source>
        <translation>trouvé</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>identified</source>
        <translation>identifié</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>not found</source>
        <translation>introuvable</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>silent</source>
        <translation>muet</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unreadable</source>
        <translation>illisible</translation>
    </message>
</context>
<context>
    <name>DetectionModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Format</source>
        <translation>Format</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Parity</source>
        <translation>Parité</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received</source>
        <translation>Reçu</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received as text</source>
        <translation>Reçu, en texte</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Sent</source>
        <translation>Envoyé</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Took (s)</source>
        <translation>Durée (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
</context>
<context>
    <name>DeviceTreeModel</name>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Busy with {command}</source>
        <translation>Occupé par {command}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Commands that need it wait until it is back for 5 minutes.</source>
        <translation>Les commandes qui en ont besoin attendent son retour depuis 5 minutes.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Drag onto a chart, or double click to add a curve.</source>
        <translation>Glissez sur un graphique, ou double-cliquez pour ajouter une courbe.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Id: {id}</source>
        <translation>Identifiant : {id}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Its generation is not managed here, so this holds nothing back.</source>
        <translation>Sa production n&apos;est pas gérée ici ; cela ne retient donc rien.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last contact: {time}</source>
        <translation>Dernier contact : {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last word on this: {time}</source>
        <translation>Dernière information : {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Model: {model}</source>
        <translation>Modèle : {model}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Now</source>
        <translation>Actuel</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Older than 10 minutes, so it counts as unknown and holds nothing back.</source>
        <translation>Plus ancien que 10 minutes ; cela compte donc comme inconnu et ne retient rien.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Open issue: {what}</source>
        <translation>Problème ouvert : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Serial number: {serial}</source>
        <translation>Numéro de série : {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>State, now</source>
        <translation>État actuel</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Switched off by a person; this holds until somebody says that it is online.</source>
        <translation>Mis à l&apos;arrêt par une personne ; cela vaut jusqu&apos;à ce que quelqu&apos;un signale son retour en ligne.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>empty</source>
        <translation>vide</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{age} old</source>
        <translation>il y a {age}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total}</source>
        <translation>{n} sur {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total} online</source>
        <translation>{n} en ligne sur {total}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} wait</source>
        <translation>
            <numerusform>{n} en attente</numerusform>
            <numerusform>{n} en attente</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, value {age} old</source>
        <translation>{state}, valeur d&apos;il y a {age}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {age} old</source>
        <translation>{state}, il y a {age}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {n} wait</source>
        <translation>
            <numerusform>{state}, {n} en attente</numerusform>
            <numerusform>{state}, {n} en attente</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>DevicesPanel</name>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Choose every device that matches, for one command to all of them.</source>
        <translation>Choisir tous les appareils correspondants, pour leur envoyer une même commande.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Connect a meter</source>
        <translation>Connecter un compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices</source>
        <translation>Appareils</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices that match</source>
        <translation>Appareils correspondants</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Name, id, serial number, model or state; or a filter:
device name adapter kind serial model link meter site grid gateway fact.NAME
Down or Ctrl+Space shows what may stand here.</source>
        <translation>Nom, identifiant, numéro de série, modèle ou état ; ou un filtre :
device name adapter kind serial model link meter site grid gateway fact.NAME
Bas ou Ctrl+Espace montre ce qui peut figurer ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No device matches. Esc shows all.</source>
        <translation>Aucun appareil ne correspond. Échap affiche tout.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No devices yet. Connect a meter or open the demo site.</source>
        <translation>Pas encore d&apos;appareils. Connectez un compteur ou ouvrez le site de démonstration.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Open the demo site</source>
        <translation>Ouvrir le site de démonstration</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices</source>
        <translation>Rechercher des appareils</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices, or  link:fault kind:meter</source>
        <translation>Rechercher des appareils, ou  link:fault kind:meter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Select all matching</source>
        <translation>Sélectionner les correspondants</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} devices are chosen.</source>
        <translation>{n} appareils sont choisis.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} of {total} devices</source>
        <translation>{n} appareils sur {total}</translation>
    </message>
</context>
<context>
    <name>DifferenceModel</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># here</source>
        <translation>N° ici</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># there</source>
        <translation>N° là-bas</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Here</source>
        <translation>Ici</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>There</source>
        <translation>Là-bas</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Where</source>
        <translation>Où</translation>
    </message>
</context>
<context>
    <name>DirectiveDialog</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Add operation</source>
        <translation>Ajouter une opération</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Down</source>
        <translation>Alt+Bas</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Up</source>
        <translation>Alt+Haut</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Directive</source>
        <translation>Directive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Down</source>
        <translation>Descendre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Enter at least one operation.</source>
        <translation>Saisissez au moins une opération.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id</source>
        <translation>Identifiant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id of the directive</source>
        <translation>Identifiant de la directive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Leave as it was</source>
        <translation>Laisser comme avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Length of the directive</source>
        <translation>Longueur de la directive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operation</source>
        <translation>Opération</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operations</source>
        <translation>Opérations</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Parameter</source>
        <translation>Paramètre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Put into the form</source>
        <translation>Reprendre dans le formulaire</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remark</source>
        <translation>Remarque</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remove operation</source>
        <translation>Retirer l&apos;opération</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>The gateway stores a directive and lists it. Its public device code does not execute it: readouts and load profiles follow a fixed dialogue, whatever stands here.</source>
        <translation>La passerelle enregistre une directive et la liste. Son code public ne l&apos;exécute pas : relèves et courbes de charge suivent un dialogue fixe, quoi qu&apos;il soit écrit ici.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Up</source>
        <translation>Monter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unknown operation</source>
        <translation>opération inconnue</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unusual parameter</source>
        <translation>paramètre inhabituel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>{count} of {most} characters</source>
        <translation>{count} caractères sur {most}</translation>
    </message>
</context>
<context>
    <name>DirectiveList</name>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n cannot be read.</source>
        <translation>
            <numerusform>%n est illisible.</numerusform>
            <numerusform>%n sont illisibles.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n directives are stored; the public device code executes none.</source>
        <translation>
            <numerusform>%n directive est enregistrée ; le code public de l&apos;appareil n&apos;en exécute aucune.</numerusform>
            <numerusform>%n directives sont enregistrées ; le code public de l&apos;appareil n&apos;en exécute aucune.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>(without id)</source>
        <translation>(sans identifiant)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete {name}…</source>
        <translation>Supprimer {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete…</source>
        <translation>Supprimer…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Directive</source>
        <translation>Directive</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Edit as new…</source>
        <translation>Modifier comme nouvelle…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>No directive is stored.</source>
        <translation>Aucune directive n&apos;est enregistrée.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Parameter</source>
        <translation>Paramètre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Stored directives</source>
        <translation>Directives enregistrées</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>damaged: {what}</source>
        <translation>endommagée : {what}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>only a part of it came</source>
        <translation>seule une partie est arrivée</translation>
    </message>
</context>
<context>
    <name>DonePage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Close</source>
        <translation>&amp;Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Go to {name}</source>
        <translation>A&amp;ller à {name}</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Connect &amp;another</source>
        <translation>Connecter un &amp;autre</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Saved</source>
        <translation>Enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Start its &amp;flow: commission {name}</source>
        <translation>Démarrer sa &amp;procédure : mettre {name} en service</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>The connection opens by itself. What it says stands in the device list and under Log.</source>
        <translation>La connexion s&apos;ouvre d&apos;elle-même. Ce qu&apos;elle dit figure dans la liste des appareils et sous Journal.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} are saved.</source>
        <translation>{names} sont enregistrés.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} is saved.</source>
        <translation>{names} est enregistré.</translation>
    </message>
</context>
<context>
    <name>ErrorPlot</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error over time; its last value stands above as text</source>
        <translation>Erreur courante dans le temps ; sa dernière valeur figure au-dessus en texte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The running error is drawn here.</source>
        <translation>L&apos;erreur courante est tracée ici.</translation>
    </message>
</context>
<context>
    <name>Event</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>abort</source>
        <translation>abandonné</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>accepted</source>
        <translation>accepté</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>admit</source>
        <translation>admis</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>adopted</source>
        <translation>repris</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>again</source>
        <translation>à nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>answered</source>
        <translation>répondu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>asked</source>
        <translation>demandé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>at the head-end</source>
        <translation>chez la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>defer</source>
        <translation>différé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>done</source>
        <translation>terminé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>fail</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failure</source>
        <translation>refus</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>found</source>
        <translation>trouvé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>handed on</source>
        <translation>transmis plus loin</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late</source>
        <translation>tardif</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late failure</source>
        <translation>échec tardif</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late success</source>
        <translation>succès tardif</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>lose sight</source>
        <translation>perdu de vue</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>matched</source>
        <translation>associé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>no token</source>
        <translation>pas de jeton</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not cancelled</source>
        <translation>non annulé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>phase {phase} given up</source>
        <translation>phase {phase} abandonnée</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>picked</source>
        <translation>choisi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>queued</source>
        <translation>en file</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reached</source>
        <translation>atteint</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>read back</source>
        <translation>relu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reading back</source>
        <translation>relecture de contrôle</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>received</source>
        <translation>reçu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>refuse token</source>
        <translation>jeton refusé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>report</source>
        <translation>signalé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry</source>
        <translation>nouvelle tentative</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>said</source>
        <translation>déclaré</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>saved</source>
        <translation>enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>send</source>
        <translation>envoi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>sent</source>
        <translation>envoyé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shared</source>
        <translation>partagé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shown</source>
        <translation>affiché</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>standing still</source>
        <translation>à l&apos;arrêt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>succeed</source>
        <translation>réussi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>success</source>
        <translation>succès</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>supersede</source>
        <translation>remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>suspend</source>
        <translation>suspendu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token</source>
        <translation>jeton</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token asked</source>
        <translation>jeton demandé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>transmitted</source>
        <translation>émis</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>examen après coup</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tried again</source>
        <translation>retenté</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uncertain</source>
        <translation>incertain</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uninstall</source>
        <translation>désinstallé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>non sollicité</translation>
    </message>
</context>
<context>
    <name>Exporter</name>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>A file is still being written: wait until it is done.</source>
        <translation>Un fichier est encore en cours d&apos;écriture : attendez la fin.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Nothing was written: set the cursors A and B first.</source>
        <translation>Rien n&apos;a été écrit : placez d&apos;abord les curseurs A et B.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Print the chart</source>
        <translation>Imprimer le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be printed: the printer {0} does not answer. Choose another one.</source>
        <translation>Le graphique n&apos;a pas pu être imprimé : l&apos;imprimante {0} ne répond pas. Choisissez-en une autre.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be written to {0}: {1}. Choose another folder.</source>
        <translation>Le graphique n&apos;a pas pu être écrit dans {0} : {1}. Choisissez un autre dossier.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write a picture</source>
        <translation>Écrire une image</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write the samples</source>
        <translation>Écrire les échantillons</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>the file cannot be opened</source>
        <translation>le fichier ne peut pas être ouvert</translation>
    </message>
</context>
<context>
    <name>FieldState</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>Firmware: {share} % of {size} bytes fetched.</source>
        <translation>Micrologiciel : {share} % de {size} octets transférés.</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>dark</source>
        <translation>hors tension</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>lit</source>
        <translation>sous tension</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>offline</source>
        <translation>hors ligne</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>en ligne</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>stale</source>
        <translation>périmé</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is dark: commands to its meters wait until it is lit for 5 minutes.</source>
        <translation>{name} est hors tension : les commandes à ses compteurs attendent qu&apos;il soit sous tension depuis 5 minutes.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is lit. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} est sous tension. Ce qui l&apos;attend reprend après 5 minutes stables.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is off: commands that need it wait until somebody says that it is online.</source>
        <translation>{name} est à l&apos;arrêt : les commandes qui en ont besoin attendent que quelqu&apos;un signale son retour en ligne.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is online. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} est en ligne. Ce qui l&apos;attend reprend après 5 minutes stables.</translation>
    </message>
</context>
<context>
    <name>Flag</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock ran on its battery or reserve, so the time may be wrong.</source>
        <translation>L&apos;horloge fonctionnait sur sa pile ou sa réserve ; l&apos;heure peut donc être fausse.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock was set in this period: it is longer or shorter than the others.</source>
        <translation>L&apos;horloge a été mise à l&apos;heure pendant cette période : elle est plus longue ou plus courte que les autres.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The maxima were reset in this period: a billing period ended.</source>
        <translation>Les maxima ont été remis à zéro pendant cette période : une période de facturation s&apos;est terminée.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter itself says that this value is disturbed. Do not bill it.</source>
        <translation>Le compteur signale lui-même que cette valeur est perturbée. Ne la facturez pas.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter reports a fatal error. Look at its error register F.F.</source>
        <translation>Le compteur signale une erreur fatale. Consultez son registre d&apos;erreurs F.F.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply came back in this period.</source>
        <translation>L&apos;alimentation est revenue pendant cette période.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply failed in this period, so its value stands for a shorter time.</source>
        <translation>L&apos;alimentation a été coupée pendant cette période ; sa valeur porte donc sur une durée plus courte.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The time is summer time.</source>
        <translation>L&apos;heure est l&apos;heure d&apos;été.</translation>
    </message>
</context>
<context>
    <name>Flow</name>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>(from step {step}: {name})</source>
        <translation>(de l&apos;étape {step} : {name})</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>A person looks and answers.</source>
        <translation>Une personne regarde et répond.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Commissions the meter by its six steps, and takes over how they end.</source>
        <translation>Met le compteur en service en six étapes et en reprend l&apos;issue.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Failed after {span}. {text}</source>
        <translation>Échec après {span}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}.</source>
        <translation>Donne la commande {command}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}: {given}.</source>
        <translation>Donne la commande {command} : {given}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Judges what earlier steps read.</source>
        <translation>Juge ce que des étapes précédentes ont lu.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Passed in {span}: {text}</source>
        <translation>Réussi en {span} : {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, did not pass.</source>
        <translation>L&apos;étape {number}, {step}, n&apos;a pas réussi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, has not begun: it waits for your word.</source>
        <translation>L&apos;étape {number}, {step}, n&apos;a pas commencé : elle attend votre accord.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, is under way. {why}</source>
        <translation>L&apos;étape {number}, {step}, est en cours. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, needs you: look and answer.</source>
        <translation>L&apos;étape {number}, {step}, a besoin de vous : regardez et répondez.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Stopped after {span}. {text}</source>
        <translation>Arrêté après {span}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>a text of the form {form}</source>
        <translation>un texte de la forme {form}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at least {low}</source>
        <translation>au moins {low}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at most {high}</source>
        <translation>au plus {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>from {low} to {high}</source>
        <translation>de {low} à {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>met</source>
        <translation>satisfait</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not begun</source>
        <translation>pas commencé</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not met</source>
        <translation>non satisfait</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not run</source>
        <translation>pas exécuté</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>nothing</source>
        <translation>rien</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>now</source>
        <translation>maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>one of {values}</source>
        <translation>une valeur parmi {values}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>open</source>
        <translation>ouvert</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>passed</source>
        <translation>réussi</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>paused</source>
        <translation>en pause</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>recorded</source>
        <translation>consigné</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>skipped</source>
        <translation>omis</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>something</source>
        <translation>une valeur</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>stopped</source>
        <translation>arrêté</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>under way</source>
        <translation>en cours</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>waits for you</source>
        <translation>vous attend</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>warning</source>
        <translation>avertissement</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>within {span} of {moment}</source>
        <translation>à {span} près de {moment}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{done} of {all} steps</source>
        <translation>{done} étapes sur {all}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{text} Step {number}, {step}, is next when it goes on.</source>
        <translation>{text} L&apos;étape {number}, {step}, viendra à la reprise.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{value} within {tolerance}</source>
        <translation>{value} à {tolerance} près</translation>
    </message>
</context>
<context>
    <name>FlowCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be read: {why}.</source>
        <translation>{name} ne peut pas être lu : {why}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is no picture that can be shown. Choose a JPEG or PNG.</source>
        <translation>{name} n&apos;est pas une image affichable. Choisissez un JPEG ou un PNG.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is {size} MiB; up to {most} MiB can be kept.</source>
        <translation>{name} fait {size} MiB ; jusqu&apos;à {most} MiB peuvent être conservés.</translation>
    </message>
</context>
<context>
    <name>FlowPanel</name>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>All its steps are done once more, from the first. It only reads.</source>
        <translation>Toutes ses étapes sont refaites, depuis la première. Elle ne fait que lire.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Flow</source>
        <translation>Procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No meter chosen.
Choose a meter or gateway in the tree on the left to run a flow.</source>
        <translation>Aucun compteur choisi.
Choisissez un compteur ou une passerelle dans l&apos;arborescence à gauche pour exécuter une procédure.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No run is shown. Choose a device and one of its runs on the tab Flow first.</source>
        <translation>Aucune exécution n&apos;est affichée. Choisissez d&apos;abord un appareil et l&apos;une de ses exécutions dans l&apos;onglet Procédure.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Nothing can be started from here: this is a recording, or a log opened for reading.</source>
        <translation>Rien ne peut être démarré d&apos;ici : ceci est une relecture, ou un journal ouvert en lecture.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Run “{flow}” on {name} again?</source>
        <translation>Exécuter « {flow} » à nouveau sur {name} ?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Start “{flow}” on {name}</source>
        <translation>Démarrer « {flow} » sur {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>These steps change the device:
{writes}
{warnings}</source>
        <translation>Ces étapes modifient l&apos;appareil :
{writes}
{warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} failed. {text}</source>
        <translation>{flow} sur {name} : échec. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} passed.</source>
        <translation>{flow} sur {name} : réussi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} waits for you: {text}</source>
        <translation>{flow} sur {name} vous attend : {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} is in the flow {flow} (run {run}). Open it in the list of runs, or stop it first.</source>
        <translation>{name} est dans la procédure {flow} (exécution {run}). Ouvrez-la dans la liste des exécutions, ou arrêtez-la d&apos;abord.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} only groups others.
Choose a meter or gateway below it to run a flow.</source>
        <translation>{name} ne fait que regrouper d&apos;autres appareils.
Choisissez un compteur ou une passerelle en dessous pour exécuter une procédure.</translation>
    </message>
</context>
<context>
    <name>FlowStatus</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>terminé</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>not begun</source>
        <translation>pas commencé</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>under way</source>
        <translation>en cours</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits</source>
        <translation>attend</translation>
    </message>
</context>
<context>
    <name>FolderField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose the folder for exports</source>
        <translation>Choisir le dossier des exports</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose…</source>
        <translation>Choisir…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered first when a file is written for others. Empty: where the last one went</source>
        <translation>Proposé en premier quand un fichier à transmettre est écrit. Vide : là où le dernier a été placé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>There is no such folder on this computer.</source>
        <translation>Ce dossier n&apos;existe pas sur cet ordinateur.</translation>
    </message>
</context>
<context>
    <name>FollowDialog</name>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>&amp;Open the command</source>
        <translation>&amp;Ouvrir la commande</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>All &amp;links of the device</source>
        <translation>Toutes les &amp;liaisons de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>As &amp;hex</source>
        <translation>En &amp;hex</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Bytes in their order</source>
        <translation>Octets dans leur ordre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>Suivre les octets autour de l&apos;interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Reading…</source>
        <translation>Lecture…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show &amp;earlier ones</source>
        <translation>Afficher les &amp;précédentes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show l&amp;ater ones</source>
        <translation>Afficher les &amp;suivantes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>These are the newest.</source>
        <translation>Ce sont les plus récentes.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Times in {zone}.</source>
        <translation>Heures en {zone}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>bytes</source>
        <translation>octets</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>cut off</source>
        <translation>tronqué</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>try</source>
        <translation>tentative</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on all its links.</source>
        <translation>{n} trames de {device} sur toutes ses liaisons.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on {link}.</source>
        <translation>{n} trames de {device} sur {link}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>… {n} more bytes</source>
        <translation>… {n} octets de plus</translation>
    </message>
</context>
<context>
    <name>Habits</name>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>A write is under way</source>
        <translation>Une écriture est en cours</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>If this workspace is closed now, its outcome may stay unknown. It stands in the log and is checked when the workspace is opened next.</source>
        <translation>Si cet espace de travail est fermé maintenant, son issue peut rester inconnue. Elle figure dans le journal et sera vérifiée à la prochaine ouverture de l&apos;espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} all the same</source>
        <translation>Ouvrir {name} quand même</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} now? A command that changes a meter is on its way.</source>
        <translation>Ouvrir {name} maintenant ? Une commande qui modifie un compteur est en cours d&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Read a site file</source>
        <translation>Lire un fichier de site</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Stay here</source>
        <translation>Rester ici</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Take it off the list</source>
        <translation>Le retirer de la liste</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>The log folder is {folder}. No program of this computer opens folders from here.</source>
        <translation>Le dossier du journal est {folder}. Aucun programme de cet ordinateur n&apos;ouvre de dossiers à partir d&apos;ici.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} is a table that is neither a log nor a site file; nothing here can be done with it.</source>
        <translation>{name} est un tableau qui n&apos;est ni un journal ni un fichier de site ; rien ne peut en être fait ici.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} looks like a batch. Open the workspace in which it is to be carried out, then try again.</source>
        <translation>{name} ressemble à un lot. Ouvrez l&apos;espace de travail dans lequel il doit être exécuté, puis réessayez.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{path} is not there any more: it was moved, or its disk is not connected.</source>
        <translation>{path} n&apos;est plus là : il a été déplacé, ou son disque n&apos;est pas connecté.</translation>
    </message>
</context>
<context>
    <name>Heard</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>heard</source>
        <translation>entendu</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard just now</source>
        <translation>entendu à l&apos;instant</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard {age} ago</source>
        <translation>entendu il y a {age}</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>just now</source>
        <translation>à l&apos;instant</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>never heard</source>
        <translation>jamais entendu</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>silent</source>
        <translation>muet</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>silent {age}</source>
        <translation>muet {age}</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{age} ago</source>
        <translation>il y a {age}</translation>
    </message>
</context>
<context>
    <name>HexView</name>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Bytes</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as hexadecimal</source>
        <translation>Copier en hexadécimal</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as text</source>
        <translation>Copier en texte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Select all</source>
        <translation>Tout sélectionner</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>byte {offset}: 0x{value:02x} = {value}</source>
        <translation>octet {offset} : 0x{value:02x} = {value}</translation>
    </message>
</context>
<context>
    <name>Issue</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no communication</source>
        <translation>aucune communication</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no credit</source>
        <translation>aucun crédit</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected meter status</source>
        <translation>état de compteur inattendu</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected power limit</source>
        <translation>limite de puissance inattendue</translation>
    </message>
</context>
<context>
    <name>KindsPage</name>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>&amp;Go on</source>
        <translation>&amp;Continuer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Choose what is in front of you.</source>
        <translation>Choisissez ce qui est devant vous.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Nothing is called {text}. Clear the search, or enter the connection by hand.</source>
        <translation>Rien ne s&apos;appelle {text}. Effacez la recherche, ou saisissez la connexion à la main.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Search for a meter, gateway or service</source>
        <translation>Rechercher un compteur, une passerelle ou un service</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Type a name: meter, LEM, gateway, ChirpStack...</source>
        <translation>Tapez un nom : compteur, LEM, passerelle, ChirpStack...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you</source>
        <translation>Ce qui est devant vous</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you?</source>
        <translation>Qu&apos;avez-vous devant vous ?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What it needs is not installed on this computer.</source>
        <translation>Ce qu&apos;il faut n&apos;est pas installé sur cet ordinateur.</translation>
    </message>
</context>
<context>
    <name>Lab</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>{what} of {device}</source>
        <translation>{what} de {device}</translation>
    </message>
</context>
<context>
    <name>LabRecords</name>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>A derived quantity of this workspace cannot be read: {why}</source>
        <translation>Une grandeur dérivée de cet espace de travail ne peut pas être lue : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The notes of this workspace cannot be read: {why}</source>
        <translation>Les notes de cet espace de travail ne peuvent pas être lues : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The recordings of this workspace cannot be read: {why}</source>
        <translation>Les acquisitions de cet espace de travail ne peuvent pas être lues : {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} derived quantities, which is the most: remove one that is no longer needed.</source>
        <translation>Il y a {n} grandeurs dérivées, c&apos;est le maximum : retirez-en une devenue inutile.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} thresholds, which is the most: remove one that is no longer needed.</source>
        <translation>Il y a {n} seuils, c&apos;est le maximum : retirez-en un devenu inutile.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There is such a threshold already: {name}.</source>
        <translation>Ce seuil existe déjà : {name}.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>This is not kept. {why}</source>
        <translation>Ceci n&apos;est pas conservé. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} added</source>
        <translation>la note {name} ajoutée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} changed</source>
        <translation>la note {name} modifiée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} removed</source>
        <translation>la note {name} retirée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} added</source>
        <translation>la grandeur {name} ajoutée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} changed</source>
        <translation>la grandeur {name} modifiée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} removed</source>
        <translation>la grandeur {name} retirée</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} added</source>
        <translation>le seuil {name} ajouté</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} changed</source>
        <translation>le seuil {name} modifié</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} removed</source>
        <translation>le seuil {name} retiré</translation>
    </message>
</context>
<context>
    <name>LabVerbs</name>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>CSV (*.csv)</source>
        <translation>CSV (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Derived quantities</source>
        <translation>Grandeurs dérivées</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit the derived quantity {name}</source>
        <translation>Modifier la grandeur dérivée {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit…</source>
        <translation>Modifier…</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Export {name}</source>
        <translation>Exporter {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Notes</source>
        <translation>Notes</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>On this chart</source>
        <translation>Sur ce graphique</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Parquet (*.parquet)</source>
        <translation>Parquet (*.parquet)</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>References</source>
        <translation>Références</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove</source>
        <translation>Retirer</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove the derived quantity {name}</source>
        <translation>Retirer la grandeur dérivée {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove {curve} of {source}</source>
        <translation>Retirer {curve} de {source}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Thresholds</source>
        <translation>Seuils</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>derived</source>
        <translation>dérivé</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name} on this chart, or off it</source>
        <translation>{name} sur ce graphique, ou retiré de celui-ci</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name}: {n} curves were written to {path}.</source>
        <translation>
            <numerusform>{name} : {n} courbe a été écrite dans {path}.</numerusform>
            <numerusform>{name} : {n} courbes ont été écrites dans {path}.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name}…</source>
        <translation>{name}…</translation>
    </message>
</context>
<context>
    <name>Legend</name>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>A</source>
        <translation>A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Age</source>
        <translation>Âge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>B</source>
        <translation>B</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>B − A</source>
        <translation>B − A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Energy, charge</source>
        <translation>Énergie, charge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Max</source>
        <translation>Max</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Mean</source>
        <translation>Moyenne</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Now</source>
        <translation>Actuel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Quantity</source>
        <translation>Grandeur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>RMS</source>
        <translation>Efficace</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Samples/s</source>
        <translation>Échant./s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per h</source>
        <translation>Pente par h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per s</source>
        <translation>Pente par s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Std dev</source>
        <translation>Écart type</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Unit</source>
        <translation>Unité</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: above {2} {1}</source>
        <translation>{0} {1} : au-dessus de {2} {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: below {2} {1}</source>
        <translation>{0} {1} : au-dessous de {2} {1}</translation>
    </message>
</context>
<context>
    <name>LinkState</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>connecting</source>
        <translation>connexion</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>défaut</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>off</source>
        <translation>déconnecté</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>en ligne</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replay</source>
        <translation>relecture</translation>
    </message>
</context>
<context>
    <name>LiveChart</name>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>All that is loaded</source>
        <translation>Tout ce qui est chargé</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pictures.py"/>
        <source>Chart</source>
        <translation>Graphique</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Clear the chart</source>
        <translation>Vider le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Columns</source>
        <translation>Colonnes</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Copy the picture</source>
        <translation>Copier l&apos;image</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor A here</source>
        <translation>Curseur A ici</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor B here</source>
        <translation>Curseur B ici</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/labels.py"/>
        <source>Drag a quantity here from the device tree,
or double-click one there to chart it.</source>
        <translation>Glissez ici une grandeur depuis l&apos;arborescence des appareils,
ou double-cliquez dessus pour la tracer.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Export</source>
        <translation>Exporter</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Fit</source>
        <translation>Ajuster</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>From A to B</source>
        <translation>De A à B</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>In {0}…</source>
        <translation>En {0}…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Live chart</source>
        <translation>Graphique en direct</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>No cursors</source>
        <translation>Sans curseurs</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note here…</source>
        <translation>Note ici…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note…</source>
        <translation>Note…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Open a note</source>
        <translation>Ouvrir une note</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as PNG…</source>
        <translation>Image en PNG…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as SVG…</source>
        <translation>Image en SVG…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Plot area</source>
        <translation>Zone de tracé</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Print…</source>
        <translation>Imprimer…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put back with its unit</source>
        <translation>Replacer avec son unité</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put on an axis of its own</source>
        <translation>Placer sur son propre axe</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put with {0}</source>
        <translation>Placer avec {0}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Échantillons</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as CSV…</source>
        <translation>Échantillons en CSV…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as Parquet…</source>
        <translation>Échantillons en Parquet…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Space holds the picture, the arrows move it, plus and minus zoom, F fits. A and B place the cursors, with Shift and Alt the arrows move them. N writes a note. The samples are in the table below.</source>
        <translation>Espace fige l&apos;image, les flèches la déplacent, plus et moins la zooment, F l&apos;ajuste. A et B placent les curseurs ; avec Maj et Alt, les flèches les déplacent. N écrit une note. Les échantillons sont dans le tableau ci-dessous.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Statistics</source>
        <translation>Statistiques</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Take off the chart</source>
        <translation>Retirer du graphique</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>The chart has {0} curves, which is the most: take one off, or add a chart for {1}.</source>
        <translation>Le graphique a {0} courbes, c&apos;est le maximum : retirez-en une, ou ajoutez un graphique pour {1}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>The visible range</source>
        <translation>La plage visible</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold</source>
        <translation>Seuil</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold here…</source>
        <translation>Seuil ici…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pointer.py"/>
        <source>and {0} more in the list below</source>
        <translation>et {0} de plus dans la liste ci-dessous</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>clock of {0}, {1}, {2}</source>
        <translation>horloge de {0}, {1}, {2}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>no unit</source>
        <translation>sans unité</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>reference</source>
        <translation>référence</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, no meter has told its own, {0}, {1}</source>
        <translation>heure de cet ordinateur, aucun compteur n&apos;a donné la sienne, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, {0}, {1}</source>
        <translation>heure de cet ordinateur, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time since the first sample</source>
        <translation>temps depuis le premier échantillon</translation>
    </message>
</context>
<context>
    <name>LogColours</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Amber, triangle</source>
        <translation>Ambre, triangle</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Blue, filled circle</source>
        <translation>Bleu, cercle plein</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Cyan, hollow diamond</source>
        <translation>Cyan, losange vide</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Green, filled diamond</source>
        <translation>Vert, losange plein</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Red, octagon</source>
        <translation>Rouge, octogone</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Violet, half diamond</source>
        <translation>Violet, demi-losange</translation>
    </message>
</context>
<context>
    <name>LogPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>%n new below</source>
        <translation>
            <numerusform>%n nouvelle en dessous</numerusform>
            <numerusform>%n nouvelles en dessous</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply also: {term}</source>
        <translation>Appliquer aussi : {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply as filter: {term}</source>
        <translation>Appliquer comme filtre : {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Compare interaction {id} with another…</source>
        <translation>Comparer l&apos;interaction {id} à une autre…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy cell</source>
        <translation>Copier la cellule</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy row</source>
        <translation>Copier la ligne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Exclude: {term}</source>
        <translation>Exclure : {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export what the filter shows</source>
        <translation>Exporter ce que montre le filtre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export…</source>
        <translation>Exporter…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter, for example  status:failed device:lem-1</source>
        <translation>Filtre, par exemple  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filters used before</source>
        <translation>Filtres déjà utilisés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow</source>
        <translation>Suivre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>Suivre les octets autour de l&apos;interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Interactions</source>
        <translation>Interactions</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Log</source>
        <translation>Journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log</source>
        <translation>Examen du journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log…</source>
        <translation>Examen du journal…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>No filter used yet</source>
        <translation>Aucun filtre encore utilisé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Nothing in the log matches this filter.
Press Esc in the filter line to see everything.</source>
        <translation>Rien dans le journal ne correspond à ce filtre.
Appuyez sur Échap dans la ligne de filtre pour tout voir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Read the log again</source>
        <translation>Relire le journal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Recent</source>
        <translation>Récents</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Rows shown</source>
        <translation>Lignes affichées</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Show interaction {id}</source>
        <translation>Afficher l&apos;interaction {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stay at the newest row</source>
        <translation>Rester à la ligne la plus récente</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stop looking</source>
        <translation>Arrêter la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stopped. Only the newest rows are shown; apply the filter again to see all.</source>
        <translation>Arrêté. Seules les lignes les plus récentes sont affichées ; appliquez à nouveau le filtre pour tout voir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>The log is empty.
Connect a meter and send a command, or open a log that somebody sent you.</source>
        <translation>Le journal est vide.
Connectez un compteur et envoyez une commande, ou ouvrez un journal que l&apos;on vous a envoyé.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>counting…</source>
        <translation>comptage…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>{rows} rows</source>
        <translation>
            <numerusform>{rows} ligne</numerusform>
            <numerusform>{rows} lignes</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>LogTableModel</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Coloured by the rule {name}</source>
        <translation>Coloré par la règle {name}</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Duration</source>
        <translation>Durée</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Id</source>
        <translation>Identifiant</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Origin</source>
        <translation>Origine</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Reason</source>
        <translation>Motif</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Status</source>
        <translation>Statut</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Time ({zone})</source>
        <translation>Heure ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Tries</source>
        <translation>Tentatives</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>A write is under way</source>
        <translation>Une écriture est en cours</translation>
    </message>
    <message>
        <source>Accuracy</source>
        <translation type="vanished">Précision</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Arm for {n} min</source>
        <translation>Armer pour {n} min</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation type="vanished">Lot</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Command</source>
        <translation>Commande</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Commands that wait for it are given up. Its log stays, and this can be undone.</source>
        <translation>Les commandes qui l&apos;attendent sont abandonnées. Son journal reste, et ceci peut être annulé.</translation>
    </message>
    <message>
        <source>Commissioning</source>
        <translation type="vanished">Mise en service</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation type="vanished">Comparer</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Devices</source>
        <translation>Appareils</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>End the &amp;recording: {name}</source>
        <translation>Terminer l&apos;&amp;acquisition : {name}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Export the log</source>
        <translation>Exporter le journal</translation>
    </message>
    <message>
        <source>Flow</source>
        <translation type="vanished">Procédure</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>From now on {name} is reached this way: {way}.</source>
        <translation>Désormais, {name} est joint par cette voie : {way}.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Go on reading</source>
        <translation>Continuer à lire</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>If you leave now, its outcome may stay unknown. It stands in the log and is checked at the next start.</source>
        <translation>Si vous quittez maintenant, l&apos;issue peut rester inconnue. Elle figure dans le journal et sera vérifiée au prochain démarrage.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Interaction</source>
        <translation>Interaction</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Leave all the same</source>
        <translation>Quitter quand même</translation>
    </message>
    <message>
        <source>Live</source>
        <translation type="vanished">Direct</translation>
    </message>
    <message>
        <source>Log</source>
        <translation type="vanished">Journal</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Log open for reading</source>
        <translation>Journal ouvert en lecture</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Looking through {name}…</source>
        <translation>Examen de {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>New workspace</source>
        <translation>Nouvel espace de travail</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Nothing can be sent from here: this is a recording. Open its workspace to send.</source>
        <translation>Rien ne peut être envoyé d&apos;ici : ceci est une relecture. Ouvrez son espace de travail pour envoyer.</translation>
    </message>
    <message>
        <source>Objects</source>
        <translation type="vanished">Objets</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Only reading again: {n} minutes are over. What was sent goes on.</source>
        <translation>De nouveau en lecture seule : {n} minutes sont écoulées. Ce qui a été envoyé se poursuit.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a log for reading</source>
        <translation>Ouvrir un journal en lecture</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a workspace</source>
        <translation>Ouvrir un espace de travail</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open it for reading</source>
        <translation>L&apos;ouvrir en lecture</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open {name} to work with it, and not only to read it?</source>
        <translation>Ouvrir {name} pour y travailler, et pas seulement pour le lire ?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>REPLAY of {name}</source>
        <translation>RELECTURE de {name}</translation>
    </message>
    <message>
        <source>Readings</source>
        <translation type="vanished">Relevés</translation>
    </message>
    <message>
        <source>Recordings</source>
        <translation type="vanished">Acquisitions</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name}</source>
        <translation>Retirer {name}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} and the {n} devices below it from this workspace?</source>
        <translation>
            <numerusform>Retirer {name} et {n} appareil au-dessous de cet espace de travail ?</numerusform>
            <numerusform>Retirer {name} et les {n} appareils au-dessous de cet espace de travail ?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} from this workspace?</source>
        <translation>Retirer {name} de cet espace de travail ?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay</source>
        <translation>Relecture</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay a log</source>
        <translation>Rejouer un journal</translation>
    </message>
    <message>
        <source>Signed records</source>
        <translation type="vanished">Enreg. signés</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Stay</source>
        <translation>Rester</translation>
    </message>
    <message>
        <source>System</source>
        <translation type="vanished">Système</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The links of its devices are opened, and what happens from now on is written to it.</source>
        <translation>Les liaisons de ses appareils sont ouvertes, et ce qui se passe désormais y est écrit.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The way {way} to {name} is forgotten.</source>
        <translation>La voie {way} vers {name} est oubliée.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This is a replay: no meter is connected, so nothing can be sent. To send, open a workspace.</source>
        <translation>Ceci est une relecture : aucun compteur n&apos;est connecté, rien ne peut donc être envoyé. Pour envoyer, ouvrez un espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This log is open for reading. Nothing can be sent to a meter.</source>
        <translation>Ce journal est ouvert en lecture. Rien ne peut être envoyé à un compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Tool bar</source>
        <translation>Barre d&apos;outils</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undo</source>
        <translation>Annuler</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undone: {what}</source>
        <translation>Annulé : {what}</translation>
    </message>
    <message>
        <source>Views</source>
        <translation type="vanished">Vues</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Welcome</source>
        <translation>Accueil</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Work with {name}</source>
        <translation>Travailler avec {name}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>another way to {name}: {way}</source>
        <translation>autre voie vers {name} : {way}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} added</source>
        <translation>la voie {way} vers {name} ajoutée</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} forgotten</source>
        <translation>la voie {way} vers {name} oubliée</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{command} on {device} is on its way.</source>
        <translation>{command} sur {device} est en cours d&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} (read only)</source>
        <translation>{name} (lecture seule)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} - Meterwright</source>
        <translation>{name} - Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} added</source>
        <translation>{name} ajouté</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} can also be reached this way now: {way}. Device &gt; Reach it switches to it.</source>
        <translation>{name} peut maintenant aussi être joint par cette voie : {way}. Appareil &gt; Joindre par permet d&apos;y passer.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} changed</source>
        <translation>{name} modifié</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} has no read command that needs no parameter.</source>
        <translation>{name} n&apos;a aucune commande de lecture sans paramètre.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} removed</source>
        <translation>{name} retiré</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{n} commands that change a meter are on their way.</source>
        <translation>{n} commandes qui modifient un compteur sont en cours d&apos;envoi.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>{n} of its commands are not finished; those that wait may be sent.</source>
        <translation>
            <numerusform>{n} de ses commandes n&apos;est pas terminée ; si elle attend, elle peut être envoyée.</numerusform>
            <numerusform>{n} de ses commandes ne sont pas terminées ; celles qui attendent peuvent être envoyées.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{path} was written.</source>
        <translation>{path} a été écrit.</translation>
    </message>
</context>
<context>
    <name>Model</name>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1 is the last, -2 the one before it; 0 and up are places in the meter&apos;s memory.</source>
        <translation>-1 est le dernier, -2 l&apos;avant-dernier ; 0 et plus sont des emplacements de la mémoire du compteur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1: leave the meter alone. The manufacturer asks that this be set once in the meter&apos;s life.</source>
        <translation>-1 : ne rien changer au compteur. Le fabricant demande de ne le régler qu&apos;une fois dans la vie du compteur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 to 31; 10 is -93 dBm. A module that knows none says 99.</source>
        <translation>0 à 31 ; 10 correspond à -93 dBm. Un module qui n&apos;en connaît pas dit 99.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 where no source is connected.</source>
        <translation>0 si aucune source n&apos;est raccordée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: any free one.</source>
        <translation>0 : n&apos;importe quel port libre.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0: as long as an answer is waited for; a server waits 10 s at least.</source>
        <translation>0 : aussi longtemps qu&apos;une réponse est attendue ; un serveur attend au moins 10 s.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>0: every two minutes with a webhook; without one faster at first, later every half minute.</source>
        <translation>0 : toutes les deux minutes avec un webhook ; sans webhook, plus vite au début, puis toutes les demi-minutes.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>0: no limit.</source>
        <translation>0 : aucune limite.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>0: no webhook; events then come over MQTT.</source>
        <translation>0 : pas de webhook ; les événements arrivent alors par MQTT.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: the one it tells, else 2622.</source>
        <translation>0 : celui qu&apos;elle annonce, sinon 2622.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0x8005 over channel 22.</source>
        <translation>0x8005 par le canal 22.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the logical name, 2 mostly the value.</source>
        <translation>1 est le nom logique, 2 le plus souvent la valeur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the management logical device.</source>
        <translation>1 est le dispositif logique de gestion.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 octet</source>
        <translation>1 octet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>1 to 37 bytes. Empty: the running one, else the last.</source>
        <translation>1 à 37 octets. Vide : celle en cours, sinon la dernière.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>1 to 37 bytes; letters, digits and - . _ ~ are safe.</source>
        <translation>1 à 37 octets ; lettres, chiffres et - . _ ~ sont sûrs.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>127.0.0.1 is this computer only; choose an address of the device&apos;s network.</source>
        <translation>127.0.0.1 est cet ordinateur seulement ; choisissez une adresse du réseau de l&apos;appareil.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 % are allowed either way.</source>
        <translation>15 % sont admis de part et d&apos;autre.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 digits. Empty: it is shown and not judged.</source>
        <translation>15 chiffres. Vide : il est affiché et non jugé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 is the public client.</source>
        <translation>16 est le client public.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 octets in hex</source>
        <translation>16 octets en hexadécimal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>2 octets</source>
        <translation>2 octets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>2000 to 2099; two digits mean 20xx.</source>
        <translation>2000 à 2099 ; deux chiffres signifient 20xx.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>3 is a register, 1 data, 7 a profile, 8 the clock.</source>
        <translation>3 est un registre, 1 une donnée, 7 un profil, 8 l&apos;horloge.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>300 on the head; mostly 9600 on RS-485 and TCP.</source>
        <translation>300 sur la tête ; le plus souvent 9600 sur RS-485 et TCP.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits, given to meters that are registered from here.</source>
        <translation>32 chiffres hexadécimaux, donnés aux compteurs enregistrés d&apos;ici.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits; empty: the one of the connection.</source>
        <translation>32 chiffres hexadécimaux ; vide : celle de la connexion.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>4 octets</source>
        <translation>4 octets</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>400 A for a DCBM 400, 600 A for a DCBM 600.</source>
        <translation>400 A pour un DCBM 400, 600 A pour un DCBM 600.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>5000 switches the warning off in practice.</source>
        <translation>5000 désactive l&apos;avertissement en pratique.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>7E1 by software</source>
        <translation>7E1 par logiciel</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>8 octets in hex. Only sent where ciphering or the authentication needs it.</source>
        <translation>8 octets en hexadécimal. Envoyé seulement si le chiffrement ou l&apos;authentification le demande.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>80 also with TLS: switching TLS on does not move the port.</source>
        <translation>80 aussi avec TLS : activer TLS ne change pas le port.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is connected with CONNECT_SUPPLY.</source>
        <translation>L&apos;alimentation d&apos;un compteur DLMS se rétablit par CONNECT_SUPPLY.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is disconnected with DISCONNECT_SUPPLY.</source>
        <translation>L&apos;alimentation d&apos;un compteur DLMS se coupe par DISCONNECT_SUPPLY.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>A battery storage that dials in to this computer.</source>
        <translation>Un stockage par batterie qui appelle cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>A dashboard of the reference head-end only listens. Where yours relays commands, switch on The head-end relays commands in the connection.</source>
        <translation>Un tableau de bord de la tête de réseau de référence ne fait qu&apos;écouter. Si la vôtre relaie les commandes, activez La tête de réseau relaie les commandes dans la connexion.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A device is online once its token was right and a packet fitted the schema. A device that is in ERROR is inspected first; then send Reset error by hand and do the step again.</source>
        <translation>Un appareil est en ligne une fois son jeton reconnu et un paquet conforme au schéma. Un appareil en ERROR est d&apos;abord inspecté ; envoyez ensuite Acquitter l&apos;erreur à la main et refaites l&apos;étape.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A few days at most: the text comes in one piece.</source>
        <translation>Quelques jours au plus : le texte arrive d&apos;un seul tenant.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A gateway that was accepted once stays registered for ever.</source>
        <translation>Une passerelle acceptée une fois reste inscrite pour toujours.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A head-end answers what is sent</source>
        <translation>Une tête de réseau répond à ce qui est envoyé</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>A longer payload is sent in several frames.</source>
        <translation>Une charge utile plus longue est envoyée en plusieurs trames.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>A lower one helps a bad head or a long line.</source>
        <translation>Un débit plus bas aide avec une mauvaise tête ou une longue ligne.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A meter of three phases is asked phase by phase.</source>
        <translation>Un compteur triphasé est interrogé phase par phase.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A new one each time, such as the job number: up to 20 letters, digits and - . _ ~</source>
        <translation>Un nouveau chaque fois, tel que le numéro d&apos;intervention : jusqu&apos;à 20 lettres, chiffres et - . _ ~</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A page to read and print (*.html)</source>
        <translation>Une page à lire et à imprimer (*.html)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A readout through the gateway: identity, energy, voltage, phase sequence and clock. Nothing is changed.</source>
        <translation>Une relève par la passerelle : identité, énergie, tension, ordre des phases et horloge. Rien n&apos;est modifié.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>A rule as JSON with activated, offset, start and end; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>Une règle en JSON avec activated, offset, start et end ; vide : le réglage propre du compteur reste tel quel.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>A serial port, or socket://HOST:4059 for a meter on the network.</source>
        <translation>Un port série, ou socket://HOST:4059 pour un compteur sur le réseau.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. A run that fails or is stopped before ends it at once.</source>
        <translation>Une transaction signée commence. Elle dure deux minutes, car de plus courtes usent la mémoire du compteur, puis la procédure y met fin. Une exécution qui échoue ou est arrêtée avant la termine aussitôt.</translation>
    </message>
    <message>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. Do not stop the run before that.</source>
        <translation type="vanished">Une transaction signée commence. Elle dure deux minutes, car de plus courtes usent la mémoire du compteur, puis la procédure y met fin. N&apos;arrêtez pas l&apos;exécution avant.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>A signed transaction begins. Ones shorter than two minutes wear the meter&apos;s memory.</source>
        <translation>Une transaction signée commence. Celles de moins de deux minutes usent la mémoire du compteur.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A smaller workspace (*.mwk)</source>
        <translation>Un espace de travail réduit (*.mwk)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A table of the interactions (*.csv)</source>
        <translation>Un tableau des interactions (*.csv)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text goes to the head-end; something has to come back.</source>
        <translation>Un texte va à la tête de réseau ; quelque chose doit revenir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text of this program goes to the head-end over the mobile network.</source>
        <translation>Un texte de ce programme va à la tête de réseau par le réseau mobile.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A token holds steps of 0.1 kWh.</source>
        <translation>Un jeton compte par pas de 0,1 kWh.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A transaction is running</source>
        <translation>Une transaction est en cours</translation>
    </message>
    <message>
        <source>A value out of bounds is a warning here, so that the transaction is ended in any case.</source>
        <translation type="vanished">Une valeur hors limites est ici un avertissement, afin que la transaction soit terminée dans tous les cas.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A vehicle or load draws current during the test</source>
        <translation>Un véhicule ou une charge appelle du courant pendant l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>ACCM</source>
        <translation>ACCM</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>API token</source>
        <translation>Jeton d&apos;API</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>APN</source>
        <translation>APN</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>APN password</source>
        <translation>Mot de passe APN</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Accept its registration</source>
        <translation>Accepter son inscription</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point</source>
        <translation>Point d&apos;accès</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point (APN)</source>
        <translation>Point d&apos;accès (APN)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point as the SIM card needs it</source>
        <translation>Point d&apos;accès demandé par la carte SIM</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Acknowledge events</source>
        <translation>Acquitter les événements</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Acknowledged in the form</source>
        <translation>Acquitté sous la forme</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Add directive</source>
        <translation>Enregistrer une directive</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add meter</source>
        <translation>Ajouter un compteur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Add the meter</source>
        <translation>Ajouter le compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add to {device}</source>
        <translation>Ajouter à {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Added behind the line, for AT+MPWD=; it is never shown.</source>
        <translation>Ajouté à la suite de la ligne, pour AT+MPWD= ; il n&apos;est jamais affiché.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address</source>
        <translation>Adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Address length</source>
        <translation>Longueur d&apos;adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of ChirpStack&apos;s REST interface, for example http://127.0.0.1:8090, or of ChirpStack itself, for example grpc://127.0.0.1:8080 or grpcs:// with TLS (needs the extra chirpstack).</source>
        <translation>Adresse de l&apos;interface REST de ChirpStack, par exemple http://127.0.0.1:8090, ou de ChirpStack lui-même, par exemple grpc://127.0.0.1:8080 ou grpcs:// avec TLS (demande l&apos;extra chirpstack).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of the device-messaging service, for example http://127.0.0.1:3100.</source>
        <translation>Adresse du service de messagerie des appareils, par exemple http://127.0.0.1:3100.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the gateway</source>
        <translation>Adresse de la passerelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Address of the head-end</source>
        <translation>Adresse de la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the image</source>
        <translation>Adresse de l&apos;image</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of the service that makes tokens; empty: none are made here.</source>
        <translation>Adresse du service qui crée les jetons ; vide : aucun n&apos;est créé ici.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Address of the vendor&apos;s service, http(s)://host[:port][/path].</source>
        <translation>Adresse du service du fournisseur, http(s)://host[:port][/path].</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of this computer for the server&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Adresse de cet ordinateur pour les événements du serveur ; 127.0.0.1 : d&apos;ici seulement.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of this computer for the service&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Adresse de cet ordinateur pour les événements du service ; 127.0.0.1 : d&apos;ici seulement.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of this computer that gateways dial; 127.0.0.1: only from here. The link is in clear text and has no login.</source>
        <translation>Adresse de cet ordinateur qu&apos;appellent les passerelles ; 127.0.0.1 : d&apos;ici seulement. La liaison est en clair et sans authentification.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Address of this computer that modules connect to; 127.0.0.1: only from here, 0.0.0.0: from everywhere. The link is in clear text and has no login.</source>
        <translation>Adresse de cet ordinateur à laquelle les modules se connectent ; 127.0.0.1 : d&apos;ici seulement, 0.0.0.0 : de partout. La liaison est en clair et sans authentification.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address or name. When it is filled in, the meter keeps time by NTP instead of by this computer&apos;s clock.</source>
        <translation>Adresse ou nom. S&apos;il est renseigné, le compteur se règle par NTP au lieu de l&apos;horloge de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>After a time-out no other meter job is sent to the gateway for so long.</source>
        <translation>Après un délai dépassé, aucun autre ordre de relève n&apos;est envoyé à la passerelle pendant cette durée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>After that it is given up unsent.</source>
        <translation>Ensuite la commande est abandonnée sans être envoyée.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Algorithm</source>
        <translation>Algorithme</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>All three parts name their version; the authentication tags stand in the report.</source>
        <translation>Les trois parties annoncent leur version ; les étiquettes d&apos;authentification figurent dans le procès-verbal.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L2) to U(L1)</source>
        <translation>Angle de U(L2) à U(L1)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L3) to U(L1)</source>
        <translation>Angle de U(L3) à U(L1)</translation>
    </message>
    <message>
        <location filename="../../app/pipeline/flow_runs.py"/>
        <source>Answer</source>
        <translation>Réponse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer AT lines</source>
        <translation>Répondre aux lignes AT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer for 0x2803.</source>
        <translation>Réponse pour 0x2803.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer from the table</source>
        <translation>Répondre depuis la table</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer to transparent payload</source>
        <translation>Réponse à la charge utile transparente</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer with an error</source>
        <translation>Répondre par une erreur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Answer within</source>
        <translation>Réponse sous</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answers</source>
        <translation>Réponses</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Answers once more</source>
        <translation>Répond encore une fois</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application</source>
        <translation>Application</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Application firmware</source>
        <translation>Micrologiciel d&apos;application</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application key</source>
        <translation>Clé d&apos;application</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>April</source>
        <translation>avril</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As address(value).</source>
        <translation>Sous la forme adresse(valeur).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>As devices enter them, separated by commas; empty: the listening address.</source>
        <translation>Tels que les appareils les saisissent, séparés par des virgules ; vide : l&apos;adresse d&apos;écoute.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As it will stand in the signed records, for example DE*ABC*E1. Empty: none.</source>
        <translation>Tel qu&apos;il figurera dans les enregistrements signés, par exemple DE*ABC*E1. Vide : aucun.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As on the meter, up to 15 characters. Empty: no meter is added.</source>
        <translation>Comme sur le compteur, jusqu&apos;à 15 caractères. Vide : aucun compteur n&apos;est ajouté.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As the SIM card needs it. Empty: it is shown and not judged.</source>
        <translation>Comme le demande la carte SIM. Vide : il est affiché et non jugé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the dialect does</source>
        <translation>Selon le dialecte</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter names it, for example 1.8.0.</source>
        <translation>Comme le nomme le compteur, par exemple 1.8.0.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter writes it, unit included.</source>
        <translation>Comme l&apos;écrit le compteur, unité comprise.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the module: TCP payload in frames</source>
        <translation>Comme le module : charge utile TCP en trames</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the profile says</source>
        <translation>Selon le profil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As usual: Turkish meters are read without, others with.</source>
        <translation>Usage courant : les compteurs turcs se lisent sans, les autres avec.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Ask the meter who it is, and end.</source>
        <translation>Demander au compteur qui il est, et terminer.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ask to stop from</source>
        <translation>Demander l&apos;arrêt à partir de</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Ask who is there</source>
        <translation>Demander qui est là</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>At</source>
        <translation>Envoyer une ligne AT</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Attempts</source>
        <translation>Tentatives</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Attribute</source>
        <translation>Attribut</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>August</source>
        <translation>août</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication</source>
        <translation>Authentification</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication key</source>
        <translation>Clé d&apos;authentification</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the application firmware</source>
        <translation>Étiquette d&apos;authentification du micrologiciel d&apos;application</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the legal firmware</source>
        <translation>Étiquette d&apos;authentification du micrologiciel légal</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Aviora gateway</source>
        <translation>Passerelle Aviora</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Aviora gateway (ProtocolZD)</source>
        <translation>Passerelle Aviora (ProtocolZD)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>B1: battery meter</source>
        <translation>B1 : compteur à pile</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Back to AUTO</source>
        <translation>Retour à AUTO</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery capacity</source>
        <translation>Capacité batterie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery charge power</source>
        <translation>Puissance de charge batterie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery current</source>
        <translation>Courant batterie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery discharge power</source>
        <translation>Puissance de décharge batterie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery power</source>
        <translation>Puissance batterie</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Battery systems that report once a second: they dial in here, or are watched through their head-end.</source>
        <translation>Systèmes à batterie qui se signalent une fois par seconde : ils appellent ici, ou sont observés par leur tête de réseau.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery temperature</source>
        <translation>Température batterie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery voltage</source>
        <translation>Tension batterie</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before power flows</source>
        <translation>Avant le passage de puissance</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before the supply is switched</source>
        <translation>Avant de commuter l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Begin</source>
        <translation>Début</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: day</source>
        <translation>Début : jour</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: hour</source>
        <translation>Début : heure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: month</source>
        <translation>Début : mois</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: which</source>
        <translation>Début : rang</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Bench hub: the device dials in here</source>
        <translation>Serveur du banc : l&apos;appareil appelle ici</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Billable</source>
        <translation>Facturable</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Block check</source>
        <translation>Contrôle de bloc</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Block cipher key</source>
        <translation>Clé de chiffrement par blocs</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Body</source>
        <translation>Corps</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Both forms of the public key agree</source>
        <translation>Les deux formes de la clé publique concordent</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Brand</source>
        <translation>Marque</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Break</source>
        <translation>Fin de session</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Burst test</source>
        <translation>Essai en rafale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>By the meter: Turkish where it names its generation, else VDEW, else standard.</source>
        <translation>Selon le compteur : turque s&apos;il nomme sa génération, sinon VDEW, sinon standard.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>C2 EVENT</source>
        <translation>C2 EVENT</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN HTTP service v1</source>
        <translation>Service HTTP CALIN v1</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN HTTP service v2</source>
        <translation>Service HTTP CALIN v2</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters over LoRaWAN</source>
        <translation>Compteurs CALIN par LoRaWAN</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v1</source>
        <translation>Compteurs CALIN, service HTTP v1</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v2</source>
        <translation>Compteurs CALIN, service HTTP v2</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>CALIN over LoRaWAN</source>
        <translation>CALIN par LoRaWAN</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>CALIN prepaid meter</source>
        <translation>Compteur CALIN à prépaiement</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 n&apos;a pas READ_TIME ; le fournisseur ne propose que la date.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 n&apos;a pas SET_TIME ; le fournisseur ne propose que la date.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 n&apos;a pas READ_TIME ; le fournisseur ne propose que la date.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 n&apos;a pas SET_TIME ; le fournisseur ne propose que la date.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>CARD_TXN_NR</source>
        <translation>CARD_TXN_NR</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>CENTRAL</source>
        <translation>CENTRAL</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>CENTRAL_1</source>
        <translation>CENTRAL_1</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>CENTRAL_2</source>
        <translation>CENTRAL_2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>CHAR (0A)</source>
        <translation>CHAR (0A)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>CO2</source>
        <translation>CO2</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>CSQ</source>
        <translation>CSQ</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Cable</source>
        <translation>Câble</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call method</source>
        <translation>Appeler une méthode</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call on {device}</source>
        <translation>Appeler sur {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Carrier id</source>
        <translation>Identifiant porteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Certificate of this hub</source>
        <translation>Certificat de ce serveur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel</source>
        <translation>Canal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 21, in frames of at most the set size.</source>
        <translation>Canal 21, en trames d&apos;au plus la taille réglée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22.</source>
        <translation>Canal 22.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22. 0x8003, 0x8005, 0x8007 and 0x3007 to 0x300A take raw values, the others typed ones.</source>
        <translation>Canal 22. 0x8003, 0x8005, 0x8007 et 0x3007 à 0x300A prennent des valeurs brutes, les autres des valeurs typées.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 23. Expect no answer from the stock firmware.</source>
        <translation>Canal 23. N&apos;attendez pas de réponse du micrologiciel d&apos;origine.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 24. Expect no acknowledgement from the stock firmware.</source>
        <translation>Canal 24. N&apos;attendez pas d&apos;accusé de réception du micrologiciel d&apos;origine.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Characters</source>
        <translation>Caractères</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Characters that are escaped besides 7E and 7D, profile rfc1662; 8 hex digits, FFFFFFFF escapes all control characters.</source>
        <translation>Caractères échappés en plus de 7E et 7D, profil rfc1662 ; 8 chiffres hexadécimaux, FFFFFFFF échappe tous les caractères de commande.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Charge</source>
        <translation>Charge</translation>
    </message>
    <message>
        <source>Charging was confirmed, as this is</source>
        <translation type="vanished">La charge a été confirmée, comme ceci</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Checksum of the sensor firmware</source>
        <translation>Somme de contrôle du micrologiciel de l&apos;unité de mesure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>ChirpStack sends it as header Authorization: Bearer, or X-Meterwright-Token.</source>
        <translation>ChirpStack l&apos;envoie comme en-tête Authorization: Bearer, ou X-Meterwright-Token.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering</source>
        <translation>Chiffrement</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering goes on from the last counter used here; raise it when another program used the key.</source>
        <translation>Le chiffrement reprend au dernier compteur utilisé ici ; augmentez-le si un autre programme a utilisé la clé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Class</source>
        <translation>Classe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear credit</source>
        <translation>Effacer le crédit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear tamper</source>
        <translation>Effacer la fraude</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clear tamper, clear credit, set power limit, read voltage, read power, first credit: one after the other. When one fails, the rest is not begun; doing the step again makes new tokens.</source>
        <translation>Effacer la fraude, effacer le crédit, régler la limite de puissance, lire la tension, lire la puissance, premier crédit : l&apos;un après l&apos;autre. Si l&apos;un échoue, le reste n&apos;est pas commencé ; refaire l&apos;étape crée de nouveaux jetons.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the credit of {device}</source>
        <translation>Effacer le crédit de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the tamper state of {device}</source>
        <translation>Effacer l&apos;état de fraude de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Cleared below the level by</source>
        <translation>Effacé sous le niveau de</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Client address</source>
        <translation>Adresse de client</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock</source>
        <translation>Horloge</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock ahead of this computer&apos;s</source>
        <translation>Avance de l&apos;horloge sur cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock before it is set</source>
        <translation>Horloge avant la mise à l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock is synchronised</source>
        <translation>L&apos;horloge est synchronisée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock of the meter</source>
        <translation>Horloge du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Clocks may differ by</source>
        <translation>Écart permis des horloges</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Close in order</source>
        <translation>Fermer proprement</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close in order (FIN)</source>
        <translation>Fermer en ordre (FIN)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close {device}</source>
        <translation>Fermer {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Closes with a reset, which the stock firmware notices.</source>
        <translation>Ferme par une réinitialisation (reset), que le micrologiciel d&apos;origine remarque.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 1</source>
        <translation>Colonnes de la courbe de charge 1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 2</source>
        <translation>Colonnes de la courbe de charge 2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 3</source>
        <translation>Colonnes de la courbe de charge 3</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Columns, period, and how many entries there are.</source>
        <translation>Colonnes, période et nombre d&apos;entrées.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command must show its effect within</source>
        <translation>Effet attendu de la commande sous</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Command octet</source>
        <translation>Octet de commande</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command waits for an offline device</source>
        <translation>Attente d&apos;un appareil hors ligne</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Commissioning</source>
        <translation>Mise en service</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Company</source>
        <translation>Société</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Confirmed by</source>
        <translation>Confirmé par</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: it leaves ERROR and shows no error flag.</source>
        <translation>Confirmé par la télémesure de l&apos;appareil : il quitte ERROR et ne montre aucun indicateur d&apos;erreur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: the protocol has no answer to a command.</source>
        <translation>Confirmé par la télémesure de l&apos;appareil : le protocole n&apos;a pas de réponse à une commande.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect supply</source>
        <translation>Rétablir l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Connect the supply</source>
        <translation>Rétablir l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect {device}</source>
        <translation>Rétablir {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Consumption</source>
        <translation>Consommation</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Counted from 1, the oldest on most meters.</source>
        <translation>Comptée à partir de 1, la plus ancienne sur la plupart des compteurs.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Credit</source>
        <translation>Crédit</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit after</source>
        <translation>Crédit après</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit before</source>
        <translation>Crédit avant</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent export</source>
        <translation>Maximum cumulé, puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent import</source>
        <translation>Maximum cumulé, puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum export</source>
        <translation>Maximum cumulé, puissance injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum import</source>
        <translation>Maximum cumulé, puissance soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum net</source>
        <translation>Maximum cumulé, puissance nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive export</source>
        <translation>Maximum cumulé, puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive import</source>
        <translation>Maximum cumulé, puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Current</source>
        <translation>Courant</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L1</source>
        <translation>Courant L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L2</source>
        <translation>Courant L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L3</source>
        <translation>Courant L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current N</source>
        <translation>Courant N</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Customer</source>
        <translation>Client</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>D: the meter sends by itself</source>
        <translation>D : le compteur envoie de lui-même</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC current</source>
        <translation>Courant CC</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DC energy meter of charging stations over HTTP or HTTPS, with signed OCMF records.</source>
        <translation>Compteur d&apos;énergie CC de bornes de recharge par HTTP ou HTTPS, avec enregistrements OCMF signés.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>DC meter of a charging station, on the network.</source>
        <translation>Compteur CC d&apos;une borne de recharge, sur le réseau.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC voltage</source>
        <translation>Tension CC</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DENIED</source>
        <translation>DENIED</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>DLMS/COSEM meter</source>
        <translation>Compteur DLMS/COSEM</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Dashboard: through the head-end</source>
        <translation>Tableau de bord : par la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Data</source>
        <translation>Données</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Date</source>
        <translation>Date</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Day</source>
        <translation>Jour</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Day of the week</source>
        <translation>Jour de la semaine</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Daylight saving of the meter</source>
        <translation>Heure d&apos;été du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf after start</source>
        <translation>Sourd après démarrage</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf for the time that is set, then the serial number is read, then idle.</source>
        <translation>Sourd pendant le temps réglé, puis le numéro de série est lu, puis repos.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>December</source>
        <translation>décembre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete directive</source>
        <translation>Supprimer une directive</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete on {device}</source>
        <translation>Supprimer sur {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver a token</source>
        <translation>Transmettre un jeton</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Deliver preexisting token</source>
        <translation>Transmettre un jeton existant</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver to {device}</source>
        <translation>Transmettre à {device}</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Demand period</source>
        <translation>Période d&apos;intégration</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Detect</source>
        <translation>Détecter</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Deviation of the meter&apos;s clock</source>
        <translation>Déviation de l&apos;horloge du compteur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Device address</source>
        <translation>Adresse de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Device below a server: the digits of its login (ICCID), or the address it connects from, with or without :port.</source>
        <translation>Appareil sous un serveur : les chiffres de son identification (ICCID), ou l&apos;adresse depuis laquelle il se connecte, avec ou sans :port.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Device id</source>
        <translation>Identifiant de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Device profile</source>
        <translation>Profil d&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Dialect</source>
        <translation>Dialecte</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Did a lamp or tester behind the meter go out and come on again?</source>
        <translation>Une lampe ou un testeur derrière le compteur s&apos;est-il éteint puis rallumé ?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Directive</source>
        <translation>Directive</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Directives</source>
        <translation>Directives</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Discharge</source>
        <translation>Décharge</translation>
    </message>
    <message>
        <source>Discharging was confirmed, as this is</source>
        <translation type="vanished">La décharge a été confirmée, comme ceci</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Disconnect control</source>
        <translation>Relais de coupure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect supply</source>
        <translation>Couper l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Disconnect the supply</source>
        <translation>Couper l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect {device}</source>
        <translation>Couper {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Display and seals</source>
        <translation>Afficheur et scellés</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Do not answer</source>
        <translation>Ne pas répondre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Do not use it</source>
        <translation>Ne pas l&apos;utiliser</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does a phase-sequence indicator at the meter&apos;s terminals show a clockwise field?</source>
        <translation>Un indicateur d&apos;ordre des phases aux bornes du compteur montre-t-il un champ tournant à droite ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the display show no error, and are terminal cover and seals in place?</source>
        <translation>L&apos;afficheur est-il sans erreur, et cache-bornes et scellés sont-ils en place ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the label read {device.serial}, are the gateway and its antenna fixed, and is the meter&apos;s line connected?</source>
        <translation>L&apos;étiquette porte-t-elle {device.serial}, la passerelle et son antenne sont-elles fixées, et la ligne du compteur est-elle raccordée ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the meter show its credit and no alarm, and does a lamp behind it burn?</source>
        <translation>Le compteur affiche-t-il son crédit sans alarme, et une lampe derrière lui s&apos;allume-t-elle ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate of the meter read {device.serial}, are its seals whole and its cables as in the drawing?</source>
        <translation>La plaque signalétique du compteur porte-t-elle {device.serial}, ses scellés sont-ils intacts et ses câbles conformes au plan ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate read {device.serial}, is the meter wired as the connection says, and is its cover closed?</source>
        <translation>La plaque signalétique porte-t-elle {device.serial}, le compteur est-il câblé comme l&apos;indique la connexion, et son capot est-il fermé ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Doubt about the certificate</source>
        <translation>Doute sur le certificat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop module</source>
        <translation>Rompre avec le module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop {device}</source>
        <translation>Rompre avec {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>E: its readable part, as C</source>
        <translation>E : sa partie lisible, comme C</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>ECDSA (HLS)</source>
        <translation>ECDSA (HLS)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>EMAID</source>
        <translation>EMAID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>EMH meters: 1 to 4, together with the meter address.</source>
        <translation>Compteurs EMH : 1 à 4, avec l&apos;adresse du compteur.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS device behind a head-end</source>
        <translation>Appareil EMS derrière une tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS edge device</source>
        <translation>Appareil EMS de périphérie</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>EMS edge device (WebSocket)</source>
        <translation>Appareil EMS de périphérie (WebSocket)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>EVCCID</source>
        <translation>EVCCID</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>EVCOID</source>
        <translation>EVCOID</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>EVSE id</source>
        <translation>Identifiant EVSE</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Earliest end</source>
        <translation>Fin au plus tôt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Echo</source>
        <translation>Écho</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Either end of the module&apos;s UART.</source>
        <translation>L&apos;une ou l&apos;autre extrémité de l&apos;UART du module.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Empty: NTP is switched off.</source>
        <translation>Vide : NTP est désactivé.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: everything, or by entries.</source>
        <translation>Vide : tout, ou par entrées.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: from the beginning. The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>Vide : depuis le début. L&apos;horloge du compteur est supposée donner l&apos;heure locale de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Empty: no MQTT; events then come as webhooks.</source>
        <translation>Vide : pas de MQTT ; les événements arrivent alors par webhooks.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Empty: the address from which it dials in, or the one it tells.</source>
        <translation>Vide : l&apos;adresse depuis laquelle elle appelle, ou celle qu&apos;elle annonce.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: this computer&apos;s time at the moment of sending.</source>
        <translation>Vide : l&apos;heure de cet ordinateur au moment de l&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: to the end.</source>
        <translation>Vide : jusqu&apos;à la fin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: up to now.</source>
        <translation>Vide : jusqu&apos;à maintenant.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: whichever meter is there. Needed where several share a line. Turkish meters: manufacturer and serial number.</source>
        <translation>Vide : le compteur présent, quel qu&apos;il soit. Requise si plusieurs partagent une ligne. Compteurs turcs : fabricant et numéro de série.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: without parameter.</source>
        <translation>Vide : sans paramètre.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Encrypt (wss)</source>
        <translation>Chiffrer (wss)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Encrypted connection</source>
        <translation>Connexion chiffrée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End</source>
        <translation>Fin</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End the test transaction</source>
        <translation>Terminer la transaction d&apos;essai</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: day</source>
        <translation>Fin : jour</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: hour</source>
        <translation>Fin : heure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: month</source>
        <translation>Fin : mois</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: which</source>
        <translation>Fin : rang</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Ends the transaction and fetches its signed record.</source>
        <translation>Termine la transaction et récupère son enregistrement signé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Energy</source>
        <translation>Énergie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute</source>
        <translation>Énergie absolue</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L1</source>
        <translation>Énergie absolue L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L2</source>
        <translation>Énergie absolue L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L3</source>
        <translation>Énergie absolue L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export</source>
        <translation>Énergie apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L1</source>
        <translation>Énergie apparente injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L2</source>
        <translation>Énergie apparente injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L3</source>
        <translation>Énergie apparente injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import</source>
        <translation>Énergie apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L1</source>
        <translation>Énergie apparente soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L2</source>
        <translation>Énergie apparente soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L3</source>
        <translation>Énergie apparente soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Energy cost</source>
        <translation>Coût de l&apos;énergie</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy export</source>
        <translation>Énergie injectée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy export (2.8.0)</source>
        <translation>Énergie injectée (2.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L1</source>
        <translation>Énergie injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L2</source>
        <translation>Énergie injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L3</source>
        <translation>Énergie injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy import</source>
        <translation>Énergie soutirée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy import (1.8.0)</source>
        <translation>Énergie soutirée (1.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L1</source>
        <translation>Énergie soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L2</source>
        <translation>Énergie soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L3</source>
        <translation>Énergie soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net</source>
        <translation>Énergie nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L1</source>
        <translation>Énergie nette L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L2</source>
        <translation>Énergie nette L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L3</source>
        <translation>Énergie nette L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy of the test</source>
        <translation>Énergie de l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export</source>
        <translation>Énergie réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L1</source>
        <translation>Énergie réactive injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L2</source>
        <translation>Énergie réactive injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L3</source>
        <translation>Énergie réactive injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import</source>
        <translation>Énergie réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L1</source>
        <translation>Énergie réactive soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L2</source>
        <translation>Énergie réactive soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L3</source>
        <translation>Énergie réactive soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I</source>
        <translation>Énergie réactive quadrant I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L1</source>
        <translation>Énergie réactive quadrant I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L2</source>
        <translation>Énergie réactive quadrant I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L3</source>
        <translation>Énergie réactive quadrant I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II</source>
        <translation>Énergie réactive quadrant II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L1</source>
        <translation>Énergie réactive quadrant II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L2</source>
        <translation>Énergie réactive quadrant II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L3</source>
        <translation>Énergie réactive quadrant II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III</source>
        <translation>Énergie réactive quadrant III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L1</source>
        <translation>Énergie réactive quadrant III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L2</source>
        <translation>Énergie réactive quadrant III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L3</source>
        <translation>Énergie réactive quadrant III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV</source>
        <translation>Énergie réactive quadrant IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L1</source>
        <translation>Énergie réactive quadrant IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L2</source>
        <translation>Énergie réactive quadrant IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L3</source>
        <translation>Énergie réactive quadrant IV L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy under load</source>
        <translation>Énergie en charge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Entry in the meter&apos;s table of loss compensation.</source>
        <translation>Entrée de la table de compensation des pertes du compteur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flag</source>
        <translation>Indicateur d&apos;erreur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flags</source>
        <translation>Indicateurs d&apos;erreur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Error status</source>
        <translation>État d&apos;erreur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Event log</source>
        <translation>Journal d&apos;événements</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Every register of the object list, which is read first when it is not known.</source>
        <translation>Chaque registre de la liste d&apos;objets, lue d&apos;abord si elle n&apos;est pas connue.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute</source>
        <translation>Exécuter</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute on {device}</source>
        <translation>Exécuter sur {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Export register</source>
        <translation>Registre d&apos;injection</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>FCS octets swapped</source>
        <translation>octets du FCS intervertis</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fatal error</source>
        <translation>Erreur fatale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Fault</source>
        <translation>Défaut</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>February</source>
        <translation>février</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>File</source>
        <translation>Fichier</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fingerprint</source>
        <translation>Empreinte</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fingerprint (SHA-256)</source>
        <translation>Empreinte (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware</source>
        <translation>Micrologiciel</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware as ordered</source>
        <translation>Micrologiciel commandé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware of the sensor unit</source>
        <translation>Micrologiciel de l&apos;unité de mesure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First</source>
        <translation>Premier</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>First baud rate</source>
        <translation>Premier débit</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>First entry</source>
        <translation>Première entrée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First line</source>
        <translation>Première ligne</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>First look at a task</source>
        <translation>Première consultation d&apos;une tâche</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First object</source>
        <translation>Premier objet</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First port</source>
        <translation>Premier port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server</source>
        <translation>Premier serveur de temps</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server, port</source>
        <translation>Premier serveur de temps, port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Fixed baud rate</source>
        <translation>Débit fixe</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Flags, firmware, keys and the meter&apos;s clock.</source>
        <translation>Indicateurs, micrologiciel, clés et horloge du compteur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For a peer whose FCS order is not that of its profile.</source>
        <translation>Pour une extrémité dont l&apos;ordre du FCS n&apos;est pas celui de son profil.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>For a server of one&apos;s own with TLS; empty: the usual authorities. Also used for MQTT.</source>
        <translation>Pour un serveur à soi avec TLS ; vide : les autorités habituelles. Utilisé aussi pour MQTT.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>For a service behind TLS with a certificate of its own; empty: the usual authorities.</source>
        <translation>Pour un service derrière TLS avec son propre certificat ; vide : les autorités habituelles.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>For a service with a certificate of its own; empty: the usual authorities.</source>
        <translation>Pour un service avec son propre certificat ; vide : les autorités habituelles.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x2100; the low octet is the link octet.</source>
        <translation>Par exemple 0x2100 ; l&apos;octet faible est l&apos;octet de liaison.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x8005.</source>
        <translation>Par exemple 0x8005.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 1-0:1.8.0*255.</source>
        <translation>Par exemple 1-0:1.8.0*255.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 9600 8N1. Serial ports only.</source>
        <translation>Par exemple 9600 8N1. Ports série seulement.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example AT+CSQ?; CR LF is added. Only modules of the first generation answer.</source>
        <translation>Par exemple AT+CSQ? ; CR LF est ajouté. Seuls les modules de première génération répondent.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>For example a card number. With the transaction id it is cut to 37 bytes.</source>
        <translation>Par exemple un numéro de carte. Avec l&apos;identifiant de transaction, tronqué à 37 octets.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For mode E on ports that only do 8N1.</source>
        <translation>Pour le mode E sur des ports qui ne font que 8N1.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>For the first octet of an answer.</source>
        <translation>Du premier octet d&apos;une réponse.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fourth</source>
        <translation>Quatrième</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Frame</source>
        <translation>Trame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frame profile</source>
        <translation>Profil de trame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frames</source>
        <translation>Trames</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>Frames for Wireshark (*.pcapng)</source>
        <translation>Trames pour Wireshark (*.pcapng)</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Frames on a UART between meter and module, raw TCP behind it; plays each side, or stands between.</source>
        <translation>Trames sur un UART entre compteur et module, TCP brut derrière ; joue chaque côté, ou se place entre les deux.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Framing</source>
        <translation>Tramage</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Frequency</source>
        <translation>Fréquence</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Friday</source>
        <translation>vendredi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From</source>
        <translation>De</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the acknowledgement to the result.</source>
        <translation>De l&apos;accusé de réception au résultat.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>From the frame to its answer.</source>
        <translation>De la trame à sa réponse.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the gateway&apos;s acknowledgement to the result.</source>
        <translation>De l&apos;accusé de réception de la passerelle au résultat.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>From this computer&apos;s clock, or by the time servers of the connection. Starting a transaction sets it as well.</source>
        <translation>Par l&apos;horloge de cet ordinateur, ou par les serveurs de temps de la connexion. Démarrer une transaction la règle aussi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1 form</source>
        <translation>Forme G1</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1: its predecessor</source>
        <translation>G1 : son prédécesseur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2 form</source>
        <translation>Forme G2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2: published since 2023</source>
        <translation>G2 : publié depuis 2023</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>GMAC (HLS)</source>
        <translation>GMAC (HLS)</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Gateways that dial in over TCP and read meters on serial lines; nothing is encrypted.</source>
        <translation>Passerelles qui appellent par TCP et lisent des compteurs sur lignes série ; rien n&apos;est chiffré.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Geographic code</source>
        <translation>Code géographique</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get meter parameter</source>
        <translation>Lire un paramètre du compteur</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get parameter</source>
        <translation>Lire un paramètre du module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Give the password</source>
        <translation>Donner le mot de passe</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid apparent power</source>
        <translation>Puissance apparente réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid current</source>
        <translation>Courant réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid demand</source>
        <translation>Puissance appelée réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy export</source>
        <translation>Énergie injectée au réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy import</source>
        <translation>Énergie soutirée du réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid frequency</source>
        <translation>Fréquence réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid peak demand</source>
        <translation>Pointe appelée réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power</source>
        <translation>Puissance réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power factor</source>
        <translation>Facteur de puissance réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid reactive power</source>
        <translation>Puissance réactive réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid total energy</source>
        <translation>Énergie totale réseau</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid voltage</source>
        <translation>Tension réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC (serial)</source>
        <translation>HDLC (série)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC begins</source>
        <translation>HDLC commence</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only: frames are numbered.</source>
        <translation>HDLC seulement : les trames sont numérotées.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only; the meter may agree to less.</source>
        <translation>HDLC seulement ; le compteur peut accepter moins.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handed over</source>
        <translation>Remise au client</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake and telemetry</source>
        <translation>Établissement de la liaison et télémesure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake, telemetry, and a walk through idle, charging and discharging within safe limits, then back to AUTO. The device has to be connected. While it is held in a manual mode, keep this program open: a minute after the connection is lost the device goes back to AUTO by itself.</source>
        <translation>Établissement de la liaison, télémesure, et parcours par repos, charge et décharge dans des limites sûres, puis retour à AUTO. L&apos;appareil doit être connecté. Tant qu&apos;il est maintenu en mode manuel, gardez ce programme ouvert : une minute après la perte de la connexion, l&apos;appareil revient à AUTO de lui-même.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Head-end</source>
        <translation>Tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Head-end for fleets</source>
        <translation>Tête de réseau pour parcs</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Head-end: device messaging</source>
        <translation>Tête de réseau : messagerie des appareils</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Heartbeat</source>
        <translation>Signe de vie</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH.</source>
        <translation>Chiffres hexadécimaux, ou text: et le texte avec \r, \n et \xHH.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH. Sent as they are; empty: the frame is built from the fields below.</source>
        <translation>Chiffres hexadécimaux, ou text: et le texte avec \r, \n et \xHH. Envoyés tels quels ; vide : la trame est construite avec les champs ci-dessous.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Hex, seven bits each; parity is added as the connection says.</source>
        <translation>Hexadécimal, sept bits chacun ; la parité est ajoutée selon la connexion.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>High octet first</source>
        <translation>Octet fort d&apos;abord</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Highest baud rate</source>
        <translation>Débit maximal</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest credit afterwards</source>
        <translation>Crédit maximal ensuite</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest current</source>
        <translation>Courant maximal</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest power right after installation</source>
        <translation>Puissance maximale juste après l&apos;installation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest temperature of the sensors</source>
        <translation>Température maximale des sondes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest voltage</source>
        <translation>Tension maximale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Hour</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>ICCID</source>
        <translation>ICCID</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>IEC 62056-21 meter</source>
        <translation>Compteur IEC 62056-21</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>IEC 62056-21 or DLMS/COSEM. Rate, format and protocol are found by trying.</source>
        <translation>IEC 62056-21 ou DLMS/COSEM. Débit, format et protocole sont trouvés par essais.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>IEC 62056-21 readout</source>
        <translation>Relève IEC 62056-21</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI</source>
        <translation>IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI on the module&apos;s label</source>
        <translation>IMEI sur l&apos;étiquette du module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>INT16U (12)</source>
        <translation>INT16U (12)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>INT32U (06)</source>
        <translation>INT32U (06)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>INT8U (11)</source>
        <translation>INT8U (11)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IP address</source>
        <translation>Adresse IP</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>IP address or name of the meter. Meters leave the factory with 192.168.1.2.</source>
        <translation>Adresse IP ou nom du compteur. Les compteurs sortent d&apos;usine avec 192.168.1.2.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4 address of this computer that the gateway reaches; empty: the one that leads to it.</source>
        <translation>Adresse IPv4 de cet ordinateur que la passerelle atteint ; vide : celle qui mène à elle.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4; the gateway knows no names.</source>
        <translation>IPv4 ; la passerelle ne connaît pas les noms.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>ISO14443</source>
        <translation>ISO14443</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>ISO15693</source>
        <translation>ISO15693</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>ISO7812</source>
        <translation>ISO7812</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Id of the node of the tree through which it is reached. Empty: the one it stands in</source>
        <translation>Identifiant du nœud de l&apos;arborescence par lequel il est joint. Vide : celui auquel il est rattaché</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Id of the test transaction</source>
        <translation>Identifiant de la transaction d&apos;essai</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identification</source>
        <translation>Identification</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification data</source>
        <translation>Données d&apos;identification</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification type</source>
        <translation>Type d&apos;identification</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Identification type to enforce</source>
        <translation>Type d&apos;identification à imposer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identify by asking</source>
        <translation>Identifier en demandant</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity</source>
        <translation>Identité</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registers</source>
        <translation>Identité et registres</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registration, its log, its directives, and one meter in its index. Run the flow of the meter after it. Nothing is changed unless adding the meter is allowed.</source>
        <translation>Identité et inscription, son journal, ses directives, et un compteur dans son index. Exécutez ensuite la procédure du compteur. Rien n&apos;est modifié sauf si l&apos;ajout du compteur est autorisé.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and state</source>
        <translation>Identité et état</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and stored directives</source>
        <translation>Identité et directives enregistrées</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity of the module</source>
        <translation>Identité du module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity or address:port of the module as in the table; empty: the only one that is connected.</source>
        <translation>Identité ou address:port du module comme dans la table ; vide : le seul connecté.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, firmware, status, clock, TLS, live values, one signed test transaction and its OCMF record. It takes two and a half minutes, under load one more. The meter keeps the record of the test transaction for good; nothing else of it is changed but its clock.</source>
        <translation>Identité, micrologiciel, état, horloge, TLS, valeurs instantanées, une transaction d&apos;essai signée et son enregistrement OCMF. Deux minutes et demie, une de plus en charge. Le compteur garde définitivement l&apos;enregistrement de la transaction d&apos;essai ; rien d&apos;autre n&apos;y est modifié que son horloge.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2), in any form.</source>
        <translation>Identité, relève, tensions d&apos;alimentation, ordre des phases et horloge. Rien n&apos;est écrit sauf si la mise à l&apos;heure est autorisée. Les valeurs instantanées sont cherchées sous leurs codes OBIS (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2), sous toute forme.</translation>
    </message>
    <message>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their short OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</source>
        <translation type="vanished">Identité, relève, tensions d&apos;alimentation, ordre des phases et horloge. Rien n&apos;est écrit sauf si la mise à l&apos;heure est autorisée. Les valeurs instantanées sont cherchées sous leurs codes OBIS courts (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, registers, supply voltages, phase sequence, clock and, where it is allowed, the disconnector. Nothing is written unless setting the clock or switching the supply is allowed.</source>
        <translation>Identité, registres, tensions d&apos;alimentation, ordre des phases, horloge et, si c&apos;est autorisé, relais de coupure. Rien n&apos;est écrit sauf si la mise à l&apos;heure ou la commutation de l&apos;alimentation est autorisée.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: IMEI</source>
        <translation>Identité : IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: label</source>
        <translation>Identité : étiquette</translation>
    </message>
    <message>
        <source>Idle was confirmed, as this is</source>
        <translation type="vanished">Le repos a été confirmé, comme ceci</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ignored without the first one.</source>
        <translation>Ignoré sans le premier.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Import register</source>
        <translation>Registre de soutirage</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In UTC, for example T01:00Z.</source>
        <translation>En UTC, par exemple T01:00Z.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>In mode D nothing is sent to the meter; read it out, which waits for its next message.</source>
        <translation>En mode D, rien n&apos;est envoyé au compteur ; lancez une relève, qui attend son prochain message.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>In the readout the meter&apos;s clock showed {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value}; by this computer it is {now} now. Is the meter&apos;s clock right?</source>
        <translation>Dans la relève, l&apos;horloge du compteur indiquait {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value} ; selon cet ordinateur, il est {now}. L&apos;horloge du compteur est-elle juste ?</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In use</source>
        <translation>Utilisé</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Information of a frame</source>
        <translation>Information d&apos;une trame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Inspect the device first: it switches its output on again as soon as it is asked for power.</source>
        <translation>Inspectez d&apos;abord l&apos;appareil : il réenclenche sa sortie dès qu&apos;une puissance lui est demandée.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC current</source>
        <translation>Courant CA onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC power</source>
        <translation>Puissance CA onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC voltage</source>
        <translation>Tension CA onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC current</source>
        <translation>Courant CC onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC power</source>
        <translation>Puissance CC onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC voltage</source>
        <translation>Tension CC onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter efficiency</source>
        <translation>Rendement onduleur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter energy generated</source>
        <translation>Énergie produite onduleur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Invocation counter, least</source>
        <translation>Compteur d&apos;invocation, minimum</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the customer told, and is nobody working on the installation behind {device.name}?</source>
        <translation>Le client est-il prévenu, et personne ne travaille-t-il sur l&apos;installation derrière {device.name} ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the module&apos;s cable back on its meter, and does the module&apos;s lamp show a connection?</source>
        <translation>Le câble du module est-il de nouveau sur son compteur, et le voyant du module indique-t-il une connexion ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>It answers once more.</source>
        <translation>Elle répond encore une fois.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>It decides the tariff and when it is switched.</source>
        <translation>Il détermine le tarif et l&apos;heure de son changement.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>It decides which commands there are. One that is not in the list may be typed.</source>
        <translation>Il détermine les commandes disponibles. Un module absent de la liste peut être saisi.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>It dials in to this computer.</source>
        <translation>Elle appelle cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Its gateway or concentrator</source>
        <translation>Sa passerelle ou son concentrateur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its log</source>
        <translation>Son journal</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its register has not gone backwards.</source>
        <translation>Son registre n&apos;a pas reculé.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>JOIN_NETWORK is never sent; it is a report of LoRaWAN meters.</source>
        <translation>JOIN_NETWORK n&apos;est jamais envoyé ; c&apos;est un rapport des compteurs LoRaWAN.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>JSON Lines, everything (*.jsonl)</source>
        <translation>JSON Lines, tout (*.jsonl)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>January</source>
        <translation>janvier</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Join network</source>
        <translation>Rejoindre le réseau</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>July</source>
        <translation>juillet</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>June</source>
        <translation>juin</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>KEY_CODE</source>
        <translation>KEY_CODE</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Key</source>
        <translation>Clé</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>LEM DCBM 400/600</source>
        <translation>LEM DCBM 400/600</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>LEM DCBM DC meter</source>
        <translation>Compteur CC LEM DCBM</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>LOCAL</source>
        <translation>LOCAL</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>LOCAL_1</source>
        <translation>LOCAL_1</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>LOCAL_2</source>
        <translation>LOCAL_2</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Last</source>
        <translation>Dernier</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent export</source>
        <translation>Dernière moyenne, puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent import</source>
        <translation>Dernière moyenne, puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average export</source>
        <translation>Dernière moyenne, puissance injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average import</source>
        <translation>Dernière moyenne, puissance soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average net</source>
        <translation>Dernière moyenne, puissance nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive export</source>
        <translation>Dernière moyenne, puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive import</source>
        <translation>Dernière moyenne, puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Last entry</source>
        <translation>Dernière entrée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left as it was found</source>
        <translation>Laissé comme trouvé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left ready</source>
        <translation>Laissé prêt</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Legal firmware</source>
        <translation>Micrologiciel légal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Letters, digits, _ and -, at most 63; * means all.</source>
        <translation>Lettres, chiffres, _ et -, au plus 63 ; * signifie tous.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Limit {device}</source>
        <translation>Limiter {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Line</source>
        <translation>Ligne</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Line format</source>
        <translation>Format de ligne</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Link octet</source>
        <translation>Octet de liaison</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Link to the sensor unit</source>
        <translation>Liaison avec l&apos;unité de mesure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>List directives</source>
        <translation>Lister les directives</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>List modules</source>
        <translation>Lister les modules</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Listen at</source>
        <translation>Écoute à</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Listen for</source>
        <translation>Écouter pendant</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on</source>
        <translation>Écoute sur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on port</source>
        <translation>Port d&apos;écoute</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only</source>
        <translation>Écoute seule</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only: nothing is ever sent, every message on the line becomes a row.</source>
        <translation>Écoute seule : rien n&apos;est jamais envoyé, chaque message sur la ligne devient une ligne du journal.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Listening port</source>
        <translation>Port d&apos;écoute</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values before the test</source>
        <translation>Valeurs instantanées avant l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values under load</source>
        <translation>Valeurs instantanées en charge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>LoRaWAN meters of one grid share a pace. Empty: none</source>
        <translation>Les compteurs LoRaWAN d&apos;un même réseau électrique partagent une cadence. Vide : aucun</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load active power</source>
        <translation>Puissance active consommée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load demand</source>
        <translation>Puissance appelée charge</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load energy consumed</source>
        <translation>Énergie consommée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load peak demand</source>
        <translation>Pointe appelée charge</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Load profile</source>
        <translation>Courbe de charge</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 1</source>
        <translation>Courbe de charge 1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 2</source>
        <translation>Courbe de charge 2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile period</source>
        <translation>Période de la courbe de charge</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load runtime</source>
        <translation>Durée de fonctionnement</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Local address</source>
        <translation>Adresse locale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Log</source>
        <translation>Journal</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Log of parameter changes</source>
        <translation>Journal des changements de paramètres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Logical device</source>
        <translation>Dispositif logique</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Longest APDU</source>
        <translation>APDU la plus longue</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Longest readout</source>
        <translation>Plus longue relève</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Look at a command every</source>
        <translation>Consulter une commande toutes les</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Low octet first</source>
        <translation>Octet faible d&apos;abord</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest credit afterwards</source>
        <translation>Crédit minimal ensuite</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest current under load</source>
        <translation>Courant minimal en charge</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest signal quality (CSQ)</source>
        <translation>Qualité de signal minimale (CSQ)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest voltage</source>
        <translation>Tension minimale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>MD5 (HLS)</source>
        <translation>MD5 (HLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT broker</source>
        <translation>Courtier MQTT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT password</source>
        <translation>Mot de passe MQTT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT port</source>
        <translation>Port MQTT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT user</source>
        <translation>Utilisateur MQTT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT with TLS</source>
        <translation>MQTT avec TLS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Made here by Make certificate; its key is in this computer&apos;s keyring. Give a copy to the device.</source>
        <translation>Créé ici par Créer un certificat ; sa clé est dans le trousseau de clés de cet ordinateur. Donnez-en une copie à l&apos;appareil.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Made in ChirpStack under API keys.</source>
        <translation>Créé dans ChirpStack sous API keys.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Make</source>
        <translation>Marque</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make a certificate for the hub of {device}</source>
        <translation>Créer un certificat pour le serveur de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make certificate</source>
        <translation>Créer un certificat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Makes the certificate of the encrypted hub (wss) with its key. The result holds it for the device to trust; the key stays in this computer&apos;s keyring. Devices that trust an earlier one need the new one, and all devices of this hub connect anew.</source>
        <translation>Crée le certificat du serveur chiffré (wss) avec sa clé. Le résultat le contient pour que l&apos;appareil lui fasse confiance ; la clé reste dans le trousseau de clés de cet ordinateur. Les appareils qui font confiance à un certificat antérieur ont besoin du nouveau, et tous les appareils de ce serveur se reconnectent.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Makes the meter known to ChirpStack and gives it its key. A meter that is known already stays as it is.</source>
        <translation>Fait connaître le compteur à ChirpStack et lui donne sa clé. Un compteur déjà connu reste tel quel.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manual, idle</source>
        <translation>Manuel, repos</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manufacturer</source>
        <translation>Fabricant</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>March</source>
        <translation>mars</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent export</source>
        <translation>Maximum appelé, puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent import</source>
        <translation>Maximum appelé, puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand export</source>
        <translation>Maximum appelé, puissance injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand import</source>
        <translation>Maximum appelé, puissance soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand net</source>
        <translation>Maximum appelé, puissance nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive export</source>
        <translation>Maximum appelé, puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive import</source>
        <translation>Maximum appelé, puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May</source>
        <translation>mai</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May take minutes, during which no live values are read.</source>
        <translation>Peut durer des minutes, pendant lesquelles aucune valeur instantanée n&apos;est lue.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measure the battery voltage at the terminals. What does your instrument show?</source>
        <translation>Mesurez la tension de la batterie aux bornes. Qu&apos;indique votre instrument ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measuring failure</source>
        <translation>Défaillance de mesure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Meter address</source>
        <translation>Adresse du compteur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Meter behind an Aviora gateway</source>
        <translation>Compteur derrière une passerelle Aviora</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Meter on an optical head, RS-485 or serial server</source>
        <translation>Compteur sur tête optique, RS-485 ou serveur série</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Meter serial</source>
        <translation>N° de série du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Meter: tests a module</source>
        <translation>Compteur : essaie un module</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Meters behind the device-messaging service: it keeps queue and retries, answers come as signed webhooks.</source>
        <translation>Compteurs derrière le service de messagerie des appareils : il gère file d&apos;attente et nouvelles tentatives, les réponses arrivent par webhooks signés.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Meters on an optical head, RS-485 or TCP: readout, registers, load profile, clock (also IEC 1107).</source>
        <translation>Compteurs sur tête optique, RS-485 ou TCP : relève, registres, courbe de charge, horloge (aussi IEC 1107).</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Meters that speak DLMS/COSEM over a serial line, an optical head or TCP, with or without keys.</source>
        <translation>Compteurs DLMS/COSEM sur ligne série, tête optique ou TCP, avec ou sans clés.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Method</source>
        <translation>Méthode</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Methods reset registers, end demand periods and switch the supply.</source>
        <translation>Les méthodes remettent des registres à zéro, terminent des périodes de mesure et commutent l&apos;alimentation.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Minute</source>
        <translation>Minute</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Mode</source>
        <translation>Mode</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Mode D: until the meter sends.</source>
        <translation>Mode D : jusqu&apos;à ce que le compteur envoie.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Model</source>
        <translation>Modèle</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Modes A, B and D have no programming mode; read the meter out instead.</source>
        <translation>Les modes A, B et D n&apos;ont pas de mode programmation ; lancez plutôt une relève.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module</source>
        <translation>Module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module: tests a meter</source>
        <translation>Module : essaie un compteur</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Monday</source>
        <translation>lundi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Month</source>
        <translation>Mois</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>NONE</source>
        <translation>NONE</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate and seals</source>
        <translation>Plaque signalétique et scellés</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate, wiring and seals</source>
        <translation>Plaque signalétique, câblage et scellés</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Names and addresses of this computer</source>
        <translation>Noms et adresses de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>National practice</source>
        <translation>Pratique nationale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Needed with calin-api-v1 and calin-api-v2</source>
        <translation>Requis avec calin-api-v1 et calin-api-v2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Needs a certificate: Make certificate makes one for the device to trust.</source>
        <translation>Demande un certificat : Créer un certificat en crée un auquel l&apos;appareil fera confiance.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs an association that may write it.</source>
        <translation>Demande une association qui peut l&apos;écrire.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs the meter&apos;s password in the connection.</source>
        <translation>Demande le mot de passe du compteur dans la connexion.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Network server</source>
        <translation>Serveur réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Never used below the warning level.</source>
        <translation>Jamais utilisé sous le niveau d&apos;avertissement.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nominal voltage</source>
        <translation>Tension nominale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>None: nothing is answered</source>
        <translation>Aucune : rien n&apos;est répondu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Not at all</source>
        <translation>Pas du tout</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>November</source>
        <translation>novembre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its concentrator</source>
        <translation>Numéro de son concentrateur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its grid at the head-end</source>
        <translation>Numéro de son réseau électrique à la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Number of the record</source>
        <translation>Numéro de l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Numbers in digits, octets in hex, times in ISO 8601; raw is A-XDR in hex.</source>
        <translation>Nombres en chiffres, octets en hexadécimal, heures en ISO 8601 ; brut est de l&apos;A-XDR en hexadécimal.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>OBIS code</source>
        <translation>Code OBIS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record</source>
        <translation>Enregistrement OCMF</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record from the meter&apos;s memory</source>
        <translation>Enregistrement OCMF de la mémoire du compteur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Object list</source>
        <translation>Liste d&apos;objets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Octets</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Octets in hex begin with 0x. A wrong one is not tried again by itself.</source>
        <translation>Les octets hexadécimaux commencent par 0x. Une valeur fausse n&apos;est pas réessayée d&apos;elle-même.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Octets per frame</source>
        <translation>Octets par trame</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>October</source>
        <translation>octobre</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Of a three-phase meter the mean is judged here, and each phase in the next step.</source>
        <translation>Pour un compteur triphasé, la moyenne est jugée ici, et chaque phase à l&apos;étape suivante.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Of a typed value; empty: the parameter itself.</source>
        <translation>D&apos;une valeur typée ; vide : le paramètre lui-même.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of charging or discharging, without a sign; empty: the device chooses. Devices clamp to 700 W charging and 300 W discharging.</source>
        <translation>De charge ou de décharge, sans signe ; vide : l&apos;appareil choisit. Les appareils limitent à 700 W en charge et 300 W en décharge.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Of one whole request.</source>
        <translation>D&apos;une requête entière.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Of phase A only; this service does not tell the others.</source>
        <translation>De la phase A seulement ; ce service ne donne pas les autres.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Of programming mode, mostly 8 digits. Empty: without.</source>
        <translation>Du mode programmation, le plus souvent 8 chiffres. Vide : sans.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of the head-end or its issuer; empty: the usual ones.</source>
        <translation>De la tête de réseau ou de son émetteur ; vide : les habituels.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Of the meter on its HDLC line, often 17 or the last digits of its number; empty: none.</source>
        <translation>Du compteur sur sa ligne HDLC, souvent 17 ou les derniers chiffres de son numéro ; vide : aucune.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter of one phase: then only voltage L1 is judged.</source>
        <translation>Désactivé pour un compteur monophasé : seule la tension L1 est alors jugée.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter that reads out registers only.</source>
        <translation>Désactivé pour un compteur dont la relève ne donne que des registres.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One flag between them</source>
        <translation>Un seul fanion entre elles</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per answer: text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. The first that fits answers.</source>
        <translation>Une ligne par réponse : text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. La première qui convient répond.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per parameter, for example 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</source>
        <translation>Une ligne par paramètre, par exemple 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>One login at the vendor&apos;s service.</source>
        <translation>Un compte auprès du service du fournisseur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One of the same id is replaced. The known firmware stores directives and does not execute them.</source>
        <translation>Celle de même identifiant est remplacée. Le micrologiciel connu enregistre les directives sans les exécuter.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One operation=parameter a line, for example setBaud=300.</source>
        <translation>Une opération=paramètre par ligne, par exemple setBaud=300.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Only Turkish national meters have this (96.3.10). Sign on once, or choose the national practice in the connection.</source>
        <translation>Seuls les compteurs nationaux turcs l&apos;ont (96.3.10). Ouvrez une fois une session, ou choisissez la pratique nationale dans la connexion.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Only a bench hub has a certificate of its own.</source>
        <translation>Seul un serveur du banc a son propre certificat.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only after an inspection: the device switches its output on again as soon as it is asked for power.</source>
        <translation>Seulement après une inspection : l&apos;appareil réenclenche sa sortie dès qu&apos;une puissance lui est demandée.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only an intermediate record</source>
        <translation>Seulement un enregistrement intermédiaire</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Only for 0x2803, instead of the value; it is never shown.</source>
        <translation>Seulement pour 0x2803, au lieu de la valeur ; il n&apos;est jamais affiché.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only of a three-phase meter whose head-end tells all of them.</source>
        <translation>Seulement pour un compteur triphasé dont la tête de réseau les donne toutes.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only sent to newer firmware (v2).</source>
        <translation>Envoyé seulement aux micrologiciels récents (v2).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Only the serial number has an effect today. To change a meter, remove it first. The gateway lists no meters; what was sent is kept here.</source>
        <translation>Seul le numéro de série a un effet aujourd&apos;hui. Pour modifier un compteur, retirez-le d&apos;abord. La passerelle ne liste pas de compteurs ; ce qui a été envoyé est conservé ici.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only when it lasts</source>
        <translation>Seulement si cela dure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Operand</source>
        <translation>Opérande</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Optical head, RS-485 adapter or serial server. Several meters may share one line.</source>
        <translation>Tête optique, adaptateur RS-485 ou serveur série. Plusieurs compteurs peuvent partager une ligne.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Optical heads mostly need the sign-on.</source>
        <translation>Les têtes optiques demandent le plus souvent l&apos;ouverture de session.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the FCS</source>
        <translation>Ordre du FCS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the request id and form of strings.</source>
        <translation>Ordre de l&apos;identifiant de requête et forme des chaînes.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other channels</source>
        <translation>Autres canaux</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Other mode (expert)</source>
        <translation>Autre mode (expert)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other side</source>
        <translation>Autre côté</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Others than everything: Turkish meters.</source>
        <translation>Autres que tout : compteurs turcs.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>P.01, P.02 and so on.</source>
        <translation>P.01, P.02, etc.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>PHONE_NUMBER</source>
        <translation>PHONE_NUMBER</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Packets</source>
        <translation>Paquets</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pagination</source>
        <translation>Pagination</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameter</source>
        <translation>Paramètre</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Parameter version</source>
        <translation>Version des paramètres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameters without answer</source>
        <translation>Paramètres sans réponse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Parity by</source>
        <translation>Parité par</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough</source>
        <translation>Relais transparent</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough as the module: channels 22 to 24.</source>
        <translation>Relais transparent comme le module : canaux 22 à 24.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough between TCP and serial line</source>
        <translation>Relais transparent entre TCP et ligne série</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough: socket://HOST:PORT to connect to, or a second serial port; empty: listen on the address above.</source>
        <translation>Relais transparent : socket://HOST:PORT auquel se connecter, ou un second port série ; vide : écouter à l&apos;adresse ci-dessus.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password</source>
        <translation>Mot de passe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for maintenance</source>
        <translation>Mot de passe pour la maintenance</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for sales</source>
        <translation>Mot de passe pour les ventes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for tasks</source>
        <translation>Mot de passe pour les tâches</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password kind</source>
        <translation>Type de mot de passe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Password or secret</source>
        <translation>Mot de passe ou secret</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Path</source>
        <translation>Chemin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Pause between frames</source>
        <translation>Pause entre trames</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence at the terminals</source>
        <translation>Ordre des phases aux bornes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence by the meter&apos;s angles</source>
        <translation>Ordre des phases d&apos;après les angles du compteur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase to neutral; 10 % are allowed either way.</source>
        <translation>Entre phase et neutre ; 10 % sont admis de part et d&apos;autre.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Phases</source>
        <translation>Phases</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Physical address</source>
        <translation>Adresse physique</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Pinned TLS certificate</source>
        <translation>Certificat TLS épinglé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Place and cabling</source>
        <translation>Emplacement et câblage</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Play the start of a module</source>
        <translation>Jouer le démarrage d&apos;un module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin at the head-end</source>
        <translation>Module à la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin that makes tokens for meters whose own plugin makes none: nxt-sts.</source>
        <translation>Module qui crée les jetons des compteurs dont le propre module n&apos;en crée pas : nxt-sts.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Poll serial</source>
        <translation>Demander qui est là</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Port</source>
        <translation>Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Port of the gateway</source>
        <translation>Port de la passerelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power</source>
        <translation>Puissance</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute</source>
        <translation>Puissance absolue</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L1</source>
        <translation>Puissance absolue L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L2</source>
        <translation>Puissance absolue L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L3</source>
        <translation>Puissance absolue L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export</source>
        <translation>Puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L1</source>
        <translation>Puissance apparente injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L2</source>
        <translation>Puissance apparente injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L3</source>
        <translation>Puissance apparente injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import</source>
        <translation>Puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L1</source>
        <translation>Puissance apparente soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L2</source>
        <translation>Puissance apparente soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L3</source>
        <translation>Puissance apparente soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export</source>
        <translation>Puissance injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L1</source>
        <translation>Puissance injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L2</source>
        <translation>Puissance injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L3</source>
        <translation>Puissance injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor</source>
        <translation>Facteur de puissance</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L1</source>
        <translation>Facteur de puissance L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L2</source>
        <translation>Facteur de puissance L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L3</source>
        <translation>Facteur de puissance L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power failures</source>
        <translation>Coupures d&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import</source>
        <translation>Puissance soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L1</source>
        <translation>Puissance soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L2</source>
        <translation>Puissance soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L3</source>
        <translation>Puissance soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power limit</source>
        <translation>Limite de puissance</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net</source>
        <translation>Puissance nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L1</source>
        <translation>Puissance nette L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L2</source>
        <translation>Puissance nette L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L3</source>
        <translation>Puissance nette L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of charging</source>
        <translation>Puissance de charge</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of discharging</source>
        <translation>Puissance de décharge</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power reached</source>
        <translation>Puissance atteinte</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export</source>
        <translation>Puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L1</source>
        <translation>Puissance réactive injectée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L2</source>
        <translation>Puissance réactive injectée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L3</source>
        <translation>Puissance réactive injectée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import</source>
        <translation>Puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L1</source>
        <translation>Puissance réactive soutirée L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L2</source>
        <translation>Puissance réactive soutirée L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L3</source>
        <translation>Puissance réactive soutirée L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I</source>
        <translation>Puissance réactive quadrant I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L1</source>
        <translation>Puissance réactive quadrant I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L2</source>
        <translation>Puissance réactive quadrant I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L3</source>
        <translation>Puissance réactive quadrant I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II</source>
        <translation>Puissance réactive quadrant II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L1</source>
        <translation>Puissance réactive quadrant II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L2</source>
        <translation>Puissance réactive quadrant II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L3</source>
        <translation>Puissance réactive quadrant II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III</source>
        <translation>Puissance réactive quadrant III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L1</source>
        <translation>Puissance réactive quadrant III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L2</source>
        <translation>Puissance réactive quadrant III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L3</source>
        <translation>Puissance réactive quadrant III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV</source>
        <translation>Puissance réactive quadrant IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L1</source>
        <translation>Puissance réactive quadrant IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L2</source>
        <translation>Puissance réactive quadrant IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L3</source>
        <translation>Puissance réactive quadrant IV L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Prefix of commands</source>
        <translation>Préfixe des commandes</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Prepaid AC meters behind ChirpStack v4: commands by REST or gRPC, answers by webhook or MQTT.</source>
        <translation>Compteurs CA à prépaiement derrière ChirpStack v4 : commandes par REST ou gRPC, réponses par webhook ou MQTT.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s first service.</source>
        <translation>Compteurs CA à prépaiement derrière des concentrateurs et le premier service du fournisseur.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s second service.</source>
        <translation>Compteurs CA à prépaiement derrière des concentrateurs et le second service du fournisseur.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Prepayment classes are not supported.</source>
        <translation>Les classes de prépaiement ne sont pas prises en charge.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Profile</source>
        <translation>Profil</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Profiles get a gap or a double period when the clock moves far.</source>
        <translation>Les profils ont une lacune ou une période double quand l&apos;horloge est fortement décalée.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Program version</source>
        <translation>Version du programme</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Property number</source>
        <translation>Numéro d&apos;inventaire</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Protocol</source>
        <translation>Protocole</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Protocol mode</source>
        <translation>Mode du protocole</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error</source>
        <translation>Provoquer une erreur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error at the device (for example by unplugging its temperature sensor), wait until its state is ERROR, then remove the cause. Is it done?</source>
        <translation>Provoquez une erreur sur l&apos;appareil (par exemple en débranchant sa sonde de température), attendez que son état soit ERROR, puis supprimez la cause. Est-ce fait ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Public key</source>
        <translation>Clé publique</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pull port</source>
        <translation>Port d&apos;interrogation</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>QuecPython module link</source>
        <translation>Liaison de module QuecPython</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module on the network</source>
        <translation>Module QuecPython sur le réseau</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module or its meter, on a serial line</source>
        <translation>Module QuecPython ou son compteur, sur ligne série</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>READ_REPORT is never sent; it is a report of LoRaWAN meters.</source>
        <translation>READ_REPORT n&apos;est jamais envoyé ; c&apos;est un rapport des compteurs LoRaWAN.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>RS-485</source>
        <translation>RS-485</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>RS-485 by RTS</source>
        <translation>RS-485 par RTS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>RS-485 driver by RTS</source>
        <translation>Émission RS-485 par RTS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Rate</source>
        <translation>Débit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Rate and character, for example 115200 8N1 or 9600 8N1.</source>
        <translation>Débit et caractère, par exemple 115200 8N1 ou 9600 8N1.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Rate and format</source>
        <translation>Débit et format</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Raw</source>
        <translation>Envoyer des octets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Raw octets</source>
        <translation>Octets bruts</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read TLS certificate</source>
        <translation>Lire le certificat TLS</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read all registers</source>
        <translation>Lire tous les registres</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read attribute</source>
        <translation>Lire un attribut</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Read back by its id and verified once more.</source>
        <translation>Relu par son identifiant et vérifié une fois de plus.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read certificate</source>
        <translation>Lire le certificat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read clock</source>
        <translation>Lire l&apos;horloge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read credit</source>
        <translation>Lire le crédit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read current</source>
        <translation>Lire le courant</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read date</source>
        <translation>Lire la date</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read events</source>
        <translation>Lire les événements</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read legal</source>
        <translation>Lire le document de transaction</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live</source>
        <translation>Lire les valeurs instantanées</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live values</source>
        <translation>Lire les valeurs instantanées</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read load profile</source>
        <translation>Lire la courbe de charge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read log</source>
        <translation>Lire le journal</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read logbook</source>
        <translation>Lire le journal du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read meter parameter</source>
        <translation>Lire un paramètre du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Read metrics</source>
        <translation>Lire les indicateurs</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read module parameter</source>
        <translation>Lire un paramètre du module</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read object list</source>
        <translation>Lire la liste d&apos;objets</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read objects</source>
        <translation>Lire les objets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read out</source>
        <translation>Relever</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power</source>
        <translation>Lire la puissance</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power limit</source>
        <translation>Lire la limite de puissance</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile info</source>
        <translation>Lire la structure de la courbe de charge</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile layout</source>
        <translation>Lire la structure d&apos;un profil</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read record</source>
        <translation>Lire l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read register</source>
        <translation>Lire un registre</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read registers</source>
        <translation>Lire tous les registres</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Read report</source>
        <translation>Lire le rapport</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Read serial</source>
        <translation>Lire le numéro de série</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read serial number</source>
        <translation>Lire le numéro de série</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read settings</source>
        <translation>Lire les réglages</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read signed record</source>
        <translation>Lire un enregistrement signé</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read status</source>
        <translation>Lire l&apos;état</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read time</source>
        <translation>Lire l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read transaction document</source>
        <translation>Lire le document de transaction</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read version</source>
        <translation>Lire la version</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read voltage</source>
        <translation>Lire la tension</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read with</source>
        <translation>Lire avec</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Readout</source>
        <translation>Relève</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Readout table</source>
        <translation>Table de relève</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter&apos;s identification; the optical head has to sit on the meter with its cable downwards.</source>
        <translation>Lit l&apos;identification du compteur ; la tête optique doit être posée sur le compteur, câble vers le bas.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter, clears its tamper flag and credit, sets its power limit, reads voltage and power, loads the first credit of its grid, and reads it again. The credit that is in the meter is lost.</source>
        <translation>Lit le compteur, efface son indicateur de fraude et son crédit, règle sa limite de puissance, lit tension et puissance, charge le premier crédit de son réseau électrique, et le relit. Le crédit présent dans le compteur est perdu.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Register</source>
        <translation>Registre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register at the network server</source>
        <translation>Enregistrer auprès du serveur réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register {device}</source>
        <translation>Enregistrer {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Registers are missing</source>
        <translation>Des registres manquent</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Relay flag of a report</source>
        <translation>Indicateur de relais d&apos;un rapport</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Release when idle for</source>
        <translation>Libérer après inactivité de</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove from {device}</source>
        <translation>Retirer de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove meter</source>
        <translation>Retirer un compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Repeats without an answer</source>
        <translation>Répétitions sans réponse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Request id</source>
        <translation>Identifiant de requête</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset error</source>
        <translation>Acquitter l&apos;erreur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reset the error</source>
        <translation>Acquitter l&apos;erreur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset the error of {device}</source>
        <translation>Acquitter l&apos;erreur de {device}</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Resets</source>
        <translation>Remises à zéro</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Role</source>
        <translation>Rôle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role meter: what answers what the head-end sends.</source>
        <translation>Rôle compteur : ce qui répond à ce qu&apos;envoie la tête de réseau.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module and passthrough.</source>
        <translation>Rôles module et relais transparent.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: text lines with AT next to frames. Values stand in the answers: AT+CSQ = 23.</source>
        <translation>Rôle module : lignes de texte commençant par AT à côté des trames. Les valeurs figurent dans les réponses : AT+CSQ = 23.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: the UART is deaf until the network is up.</source>
        <translation>Rôle module : l&apos;UART est sourd jusqu&apos;à ce que le réseau soit disponible.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role of this computer</source>
        <translation>Rôle de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent export</source>
        <translation>Moyenne en cours, puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent import</source>
        <translation>Moyenne en cours, puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average export</source>
        <translation>Moyenne en cours, puissance injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average import</source>
        <translation>Moyenne en cours, puissance soutirée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average net</source>
        <translation>Moyenne en cours, puissance nette</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive export</source>
        <translation>Moyenne en cours, puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive import</source>
        <translation>Moyenne en cours, puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>SC</source>
        <translation>SC</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>SHA-1 (HLS)</source>
        <translation>SHA-1 (HLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>SHA-256 (HLS)</source>
        <translation>SHA-256 (HLS)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>SHA-256 of the certificate, as READ_CERTIFICATE shows it; needed to switch on.</source>
        <translation>SHA-256 du certificat, tel que le montre READ_CERTIFICATE ; requis pour activer.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SHA-256 of the signed bytes</source>
        <translation>SHA-256 des octets signés</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SIM card: ICCID</source>
        <translation>Carte SIM : ICCID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>STR (09)</source>
        <translation>STR (09)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Saturday</source>
        <translation>samedi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Script</source>
        <translation>Script</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Second</source>
        <translation>Seconde</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Second answer</source>
        <translation>Seconde réponse</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Second port</source>
        <translation>Second port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server</source>
        <translation>Second serveur de temps</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server, port</source>
        <translation>Second serveur de temps, port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send</source>
        <translation>Envoyer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send AT line</source>
        <translation>Envoyer une ligne AT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send a frame</source>
        <translation>Envoyer une trame</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Send a test event</source>
        <translation>Envoyer un événement d&apos;essai</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send event</source>
        <translation>Envoyer un événement</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send frame</source>
        <translation>Envoyer une trame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send octets</source>
        <translation>Envoyer des octets</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send to {device}</source>
        <translation>Envoyer à {device}</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send transparent</source>
        <translation>Envoyer des données transparentes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send transparent data</source>
        <translation>Envoyer des données transparentes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Send {device} to another server</source>
        <translation>Envoyer {device} vers un autre serveur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sends what is set under Identify by asking, and takes the first digits of the answer for the identity.</source>
        <translation>Envoie ce qui est réglé sous Identifier en demandant, et prend les premiers chiffres de la réponse pour l&apos;identité.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as Authorization: Bearer, never in the address.</source>
        <translation>Envoyé comme Authorization: Bearer, jamais dans l&apos;adresse.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Sent as Authorization: Bearer. Empty for a service that asks for none.</source>
        <translation>Envoyée comme Authorization: Bearer. Vide pour un service qui n&apos;en demande pas.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as it stands here instead of a mode of the list.</source>
        <translation>Envoyé tel qu&apos;écrit ici au lieu d&apos;un mode de la liste.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sent in each frame, for example the signal quality 0..31 or 99. Other values than 0 are dropped by peers that compare 16 bits; the stock firmware is one.</source>
        <translation>Envoyé dans chaque trame, par exemple la qualité du signal 0..31 ou 99. Les valeurs autres que 0 sont rejetées par les extrémités qui comparent 16 bits ; le micrologiciel d&apos;origine en fait partie.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>September</source>
        <translation>septembre</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Serial number</source>
        <translation>Numéro de série</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number in the record</source>
        <translation>Numéro de série dans l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number of the meter behind it</source>
        <translation>Numéro de série du compteur derrière elle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serial port</source>
        <translation>Port série</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Serial port or its URL; not used by the server.</source>
        <translation>Port série ou son URL ; inutilisé par le serveur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on</source>
        <translation>Servir sur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on port</source>
        <translation>Servir sur le port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Served to the gateway from here instead, as long as the order runs.</source>
        <translation>Servie d&apos;ici à la passerelle à la place, tant que l&apos;ordre est en cours.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server address</source>
        <translation>Adresse du serveur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server port</source>
        <translation>Port du serveur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server that modules connect to</source>
        <translation>Serveur auquel les modules se connectent</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server: sent to a module that does not log in, for example text:/?!\r\n or hex:7EA0...; its first digits are the identity. Empty: nothing is sent.</source>
        <translation>Serveur : envoyé à un module qui ne s&apos;identifie pas, par exemple text:/?!\r\n ou hex:7EA0... ; les premiers chiffres de sa réponse sont l&apos;identité. Vide : rien n&apos;est envoyé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Service</source>
        <translation>Service</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set clock</source>
        <translation>Mettre l&apos;horloge à l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set date</source>
        <translation>Régler la date</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set daylight saving</source>
        <translation>Régler l&apos;heure d&apos;été</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set dst</source>
        <translation>Régler l&apos;heure d&apos;été</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set identification type</source>
        <translation>Définir le type d&apos;identification</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means off</source>
        <translation>Actif signifie coupé</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means on</source>
        <translation>Actif signifie enclenché</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set meter parameter</source>
        <translation>Écrire un paramètre du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set mode</source>
        <translation>Régler le mode</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set ntp</source>
        <translation>Régler les serveurs de temps</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set parameter</source>
        <translation>Écrire un paramètre du module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set power limit</source>
        <translation>Régler la limite de puissance</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Set server</source>
        <translation>Définir le serveur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the clock</source>
        <translation>Mettre l&apos;horloge à l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set the clock of {device}</source>
        <translation>Mettre à l&apos;heure l&apos;horloge de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set the date of {device}</source>
        <translation>Régler la date de {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the meter&apos;s clock</source>
        <translation>Mettre à l&apos;heure l&apos;horloge du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set the mode of {device}</source>
        <translation>Régler le mode de {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set time</source>
        <translation>Régler l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time servers</source>
        <translation>Définir les serveurs de temps</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time zone</source>
        <translation>Définir le fuseau horaire</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set timezone</source>
        <translation>Régler le fuseau horaire</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set tls</source>
        <translation>Basculer TLS</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sets the clock, or the time servers, and zone and daylight saving where configured.</source>
        <translation>Règle l&apos;horloge, ou les serveurs de temps, ainsi que fuseau et heure d&apos;été s&apos;ils sont configurés.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Setting the clock switches NTP off in the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Mettre l&apos;horloge à l&apos;heure désactive NTP dans le compteur. Le compteur peut perdre un réglage écrit dans ses deux premières minutes après la mise sous tension.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shift</source>
        <translation>Décalage</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Show only</source>
        <translation>Montrer seulement</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shows the certificate and its fingerprint; compare them before switching TLS on.</source>
        <translation>Montre le certificat et son empreinte ; comparez-les avant d&apos;activer TLS.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Sign on</source>
        <translation>Ouvrir une session</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signal quality</source>
        <translation>Qualité du signal</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signature</source>
        <translation>Signature</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signed records carry this time.</source>
        <translation>Les enregistrements signés portent cette heure.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>So long after the vendor took it. Looks happen every five seconds.</source>
        <translation>Ce temps après sa prise en charge par le fournisseur. Les consultations ont lieu toutes les cinq secondes.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Software: for ports and serial servers that only do 8N1; the meter still sees 7E1.</source>
        <translation>Logiciel : pour les ports et serveurs série qui ne font que 8N1 ; le compteur voit toujours 7E1.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some firmware does not tell it.</source>
        <translation>Certains micrologiciels ne l&apos;indiquent pas.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some meters only become ready: then somebody presses the button on the meter, and the step is done again.</source>
        <translation>Certains compteurs deviennent seulement prêts : quelqu&apos;un appuie alors sur le bouton du compteur, et l&apos;étape est refaite.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Somebody at the device has to provoke an error and to remove it again.</source>
        <translation>Quelqu&apos;un près de l&apos;appareil doit provoquer une erreur, puis la supprimer.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Source address on this computer; empty: the system chooses.</source>
        <translation>Adresse source sur cet ordinateur ; vide : le système choisit.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Source of the time</source>
        <translation>Source de l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Stands before the number of each command at the service. Empty: mw- and a word of this workspace, so that two workspaces at one service do not meet.</source>
        <translation>Précède le numéro de chaque commande auprès du service. Vide : mw- et un mot de cet espace de travail, afin que deux espaces de travail d&apos;un même service ne se croisent pas.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start on {device}</source>
        <translation>Démarrer sur {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Start the test transaction</source>
        <translation>Démarrer la transaction d&apos;essai</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start transaction</source>
        <translation>Démarrer une transaction</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Start up</source>
        <translation>Jouer le démarrage d&apos;un module</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of charge</source>
        <translation>État de charge</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of health</source>
        <translation>État de santé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State of the disconnector</source>
        <translation>État du relais de coupure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Status (17: ready)</source>
        <translation>Statut (17 : prêt)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Steps</source>
        <translation>Étapes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Still there</source>
        <translation>Toujours là</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stock firmware loses both; a meter then has to pause between frames.</source>
        <translation>Le micrologiciel d&apos;origine perd les deux ; un compteur doit alors marquer une pause entre les trames.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop on {device}</source>
        <translation>Arrêter sur {device}</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop transaction</source>
        <translation>Arrêter la transaction</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store directive</source>
        <translation>Enregistrer une directive</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store on {device}</source>
        <translation>Enregistrer sur {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stored records</source>
        <translation>Enregistrements en mémoire</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Subject</source>
        <translation>Sujet</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Such as 0.1.4.0. Empty: it is shown and not judged.</source>
        <translation>Par exemple 0.1.4.0. Vide : il est affiché et non jugé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Suite 0, encrypted and authenticated.</source>
        <translation>Suite 0, chiffré et authentifié.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summary</source>
        <translation>Résumé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summer time</source>
        <translation>Heure d&apos;été</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sunday</source>
        <translation>dimanche</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply</source>
        <translation>Alimentation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply is on</source>
        <translation>Alimentation présente</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Supply relay</source>
        <translation>Relais de coupure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply voltage</source>
        <translation>Tension d&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Switch TLS</source>
        <translation>Commuter TLS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Switch the driver by RTS while sending; most adapters do it by themselves.</source>
        <translation>Commuter le circuit d&apos;émission par RTS pendant l&apos;envoi ; la plupart des adaptateurs le font d&apos;eux-mêmes.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Switch the driver of an RS-485 adapter by RTS while sending.</source>
        <translation>Commuter par RTS le circuit d&apos;émission d&apos;un adaptateur RS-485 pendant l&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Switch the supply off and on</source>
        <translation>Couper puis rétablir l&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Switches the driver while sending.</source>
        <translation>Commute le circuit d&apos;émission pendant l&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sync time</source>
        <translation>Synchroniser l&apos;horloge</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Synchronise clock</source>
        <translation>Synchroniser l&apos;horloge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>System title of this client</source>
        <translation>Titre système de ce client</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>TLS</source>
        <translation>TLS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>TLS certificate</source>
        <translation>Certificat TLS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Take what is written</source>
        <translation>Prendre ce qui est écrit</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Tampering</source>
        <translation>Fraude</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Tap: octets as they are, with a decoded copy</source>
        <translation>Écoute : octets tels quels, avec une copie décodée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tariff</source>
        <translation>Tarif</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tariff text</source>
        <translation>Texte du tarif</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature H</source>
        <translation>Température H</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature L</source>
        <translation>Température L</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Tenant</source>
        <translation>Locataire (tenant)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test event</source>
        <translation>Événement d&apos;essai</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test the reset of an error</source>
        <translation>Essayer l&apos;acquittement d&apos;une erreur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The 20 digits of the token; blanks and dashes do not matter.</source>
        <translation>Les 20 chiffres du jeton ; espaces et tirets sont sans importance.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The OCMF record by id or number, else the current or last one, with its verdict.</source>
        <translation>L&apos;enregistrement OCMF par identifiant ou numéro, sinon celui en cours ou le dernier, avec son verdict.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is charged at once. A full battery does not charge: the walk then fails, and the device is put back to AUTO.</source>
        <translation>La batterie est chargée aussitôt. Une batterie pleine ne se charge pas : le parcours échoue alors, et l&apos;appareil est remis en AUTO.</translation>
    </message>
    <message>
        <source>The battery is charged at once. A full battery does not charge: the walk then goes on, and fails at its end, when the device is in AUTO again.</source>
        <translation type="vanished">La batterie est chargée aussitôt. Une batterie pleine ne se charge pas : le parcours continue alors, et échoue à sa fin, quand l&apos;appareil est revenu en AUTO.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is discharged at once.</source>
        <translation>La batterie est déchargée aussitôt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The beginning of a serial number is acknowledged and removes nothing.</source>
        <translation>Le début d&apos;un numéro de série est acquitté et ne retire rien.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The calendar date at the grid.</source>
        <translation>La date du calendrier au lieu du réseau électrique.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The clock is set first. A transaction that still runs is stopped before.</source>
        <translation>L&apos;horloge est d&apos;abord mise à l&apos;heure. Une transaction encore en cours est arrêtée avant.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The connection has to be encrypted</source>
        <translation>La connexion doit être chiffrée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The credit is going to be cleared</source>
        <translation>Le crédit va être effacé</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer is without power for some seconds. Make sure that nobody works on the installation.</source>
        <translation>Le client n&apos;est pas alimenté pendant quelques secondes. Assurez-vous que personne ne travaille sur l&apos;installation.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer loses power.</source>
        <translation>Le client n&apos;est plus alimenté.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer loses power. Whatever is found here, and also when the run is stopped, the supply is connected again.</source>
        <translation>Le client n&apos;est plus alimenté. Quoi que l&apos;on constate ici, et aussi si l&apos;exécution est arrêtée, l&apos;alimentation est rétablie.</translation>
    </message>
    <message>
        <source>The customer loses power. Whatever is found here, the next step connects the supply again.</source>
        <translation type="vanished">Le client n&apos;est plus alimenté. Quoi que l&apos;on constate ici, l&apos;étape suivante rétablit l&apos;alimentation.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer&apos;s installation gets power. Make sure that nobody works on it.</source>
        <translation>L&apos;installation du client est alimentée. Assurez-vous que personne n&apos;y travaille.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched off.</source>
        <translation>L&apos;alimentation du client est coupée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched on; nobody may be working on the installation.</source>
        <translation>L&apos;alimentation du client est rétablie ; personne ne doit travailler sur l&apos;installation.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device charges or discharges at once.</source>
        <translation>L&apos;appareil se charge ou se décharge aussitôt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is going to charge with {input.charge_power} W and to discharge with {input.discharge_power} W. Are covers closed, is the emergency stop in reach, and is nobody working on it?</source>
        <translation>L&apos;appareil va se charger à {input.charge_power} W et se décharger à {input.discharge_power} W. Les capots sont-ils fermés, l&apos;arrêt d&apos;urgence est-il à portée, et personne n&apos;y travaille-t-il ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is held at 0 W.</source>
        <translation>L&apos;appareil est maintenu à 0 W.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is left in AUTO, also when the walk failed or was stopped.</source>
        <translation>L&apos;appareil est laissé en AUTO, même si le parcours a échoué ou a été arrêté.</translation>
    </message>
    <message>
        <source>The device is left in AUTO. The walk has passed when idle, charging and discharging were confirmed before.</source>
        <translation type="vanished">L&apos;appareil est laissé en AUTO. Le parcours a réussi quand repos, charge et décharge ont été confirmés auparavant.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>The device messaging service, with its key.</source>
        <translation>Le service de messagerie des appareils, avec sa clé.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device shows it as Authorization: Bearer. Only a salted hash of it is kept.</source>
        <translation>L&apos;appareil le présente comme Authorization: Bearer. Seule une empreinte salée en est conservée.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The firmware version cannot be read over LoRaWAN.</source>
        <translation>La version du micrologiciel ne peut pas être lue par LoRaWAN.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The first credit that the grid gives, less what is used meanwhile.</source>
        <translation>Le premier crédit donné par le réseau électrique, moins ce qui est utilisé entre-temps.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway cannot set the clock of a meter. One that is off is set at its optical head.</source>
        <translation>La passerelle ne peut pas mettre à l&apos;heure l&apos;horloge d&apos;un compteur. Une horloge décalée se règle à sa tête optique.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway checks neither format nor signature of the image, and never tells the outcome.</source>
        <translation>La passerelle ne contrôle ni le format ni la signature de l&apos;image, et n&apos;en dit jamais l&apos;issue.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway leaves this program and dials the other server, for ever and without introducing itself there. If the address is wrong, somebody has to go to it.</source>
        <translation>La passerelle quitte ce programme et appelle l&apos;autre serveur, pour toujours et sans s&apos;y présenter. Si l&apos;adresse est fausse, quelqu&apos;un doit se rendre sur place.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway puts the meter into its index. It can be taken out again with the command Remove meter.</source>
        <translation>La passerelle met le compteur dans son index. Il peut en être retiré par la commande Retirer un compteur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway takes a request on its pull port and answers: the way back to it is open.</source>
        <translation>La passerelle prend une requête sur son port d&apos;interrogation et répond : la voie vers elle est ouverte.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway tells no failures of a meter: then nothing comes until the time is over.</source>
        <translation>La passerelle ne signale pas les échecs d&apos;un compteur : rien n&apos;arrive alors jusqu&apos;à la fin du délai.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway tells no failures of the meter: then nothing comes at all.</source>
        <translation>La passerelle ne signale pas les échecs du compteur : rien n&apos;arrive alors.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway was let in under its serial number; what it told of itself stands in the report.</source>
        <translation>La passerelle a été admise sous son numéro de série ; ce qu&apos;elle a dit d&apos;elle-même figure dans le procès-verbal.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway&apos;s clock shows {fact.device_date}; by this computer it is {now} now. Is it right?</source>
        <translation>L&apos;horloge de la passerelle indique {fact.device_date} ; selon cet ordinateur, il est {now}. Est-elle juste ?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway&apos;s server port, mostly 8722; 0: any free one.</source>
        <translation>Le port serveur de la passerelle, le plus souvent 8722 ; 0 : n&apos;importe quel port libre.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm.</source>
        <translation>La tête de réseau reçoit une alarme.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm: tell its staff before.</source>
        <translation>La tête de réseau reçoit une alarme : prévenez son personnel avant.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The head-end relays commands</source>
        <translation>La tête de réseau relaie les commandes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware does not use it.</source>
        <translation>Le micrologiciel connu ne l&apos;utilise pas.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware stores directives and does not execute them.</source>
        <translation>Le micrologiciel connu enregistre les directives sans les exécuter.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The link is as it was</source>
        <translation>La liaison est comme avant</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The list is cut</source>
        <translation>La liste est tronquée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>The load profile; 1-0:99.1.0 is the first one.</source>
        <translation>La courbe de charge ; 1-0:99.1.0 est la première.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The log is cut</source>
        <translation>Le journal est tronqué</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The manufacturer asks that this be set once in the life of the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Le fabricant demande de ne le régler qu&apos;une fois dans la vie du compteur. Le compteur peut perdre un réglage écrit dans ses deux premières minutes après la mise sous tension.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to answer before anything is changed.</source>
        <translation>Le compteur doit répondre avant toute modification.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to be idle and ready, as it was found.</source>
        <translation>Le compteur doit être au repos et prêt, comme il a été trouvé.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter holds {steps.before.result.kwh_credit_available} kWh, which are lost now. May they be cleared?</source>
        <translation>Le compteur contient {steps.before.result.kwh_credit_available} kWh, qui vont être perdus. Peuvent-ils être effacés ?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter is back on the module</source>
        <translation>Le compteur est de nouveau sur le module</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter is busy for minutes. Read the logbook only when it is needed.</source>
        <translation>Le compteur est occupé pendant des minutes. Ne lisez son journal que si nécessaire.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter joins the network by itself; it cannot be told to.</source>
        <translation>Le compteur rejoint le réseau de lui-même ; on ne peut pas le lui commander.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Le compteur peut perdre un réglage écrit dans ses deux premières minutes après la mise sous tension.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up. Where the clock is set by hand, the time servers in the meter are switched off.</source>
        <translation>Le compteur peut perdre un réglage écrit dans ses deux premières minutes après la mise sous tension. Si l&apos;horloge est mise à l&apos;heure à la main, les serveurs de temps du compteur sont désactivés.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The meter may not check what is written.</source>
        <translation>Le compteur ne contrôle peut-être pas ce qui est écrit.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter says it runs</source>
        <translation>Le compteur dit qu&apos;elle est en cours</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter sends its report by itself; it cannot be asked for.</source>
        <translation>Le compteur envoie son rapport de lui-même ; on ne peut pas le lui demander.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. A large step may leave a gap or a double period in its load profile.</source>
        <translation>Le compteur prend l&apos;heure de cet ordinateur. Un grand saut peut laisser une lacune ou une période double dans sa courbe de charge.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. Its profiles get a gap or a double period when the clock moves far.</source>
        <translation>Le compteur prend l&apos;heure de cet ordinateur. Ses profils ont une lacune ou une période double si l&apos;horloge est fortement décalée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>The meter&apos;s certificate as PEM. When it is filled in, the connection uses TLS and accepts only it.</source>
        <translation>Le certificat du compteur en PEM. S&apos;il est renseigné, la connexion utilise TLS et n&apos;accepte que lui.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>L&apos;horloge du compteur est supposée donner l&apos;heure locale de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>The meter&apos;s gateway does this; choose it in the tree.</source>
        <translation>La passerelle du compteur le fait ; choisissez-la dans l&apos;arborescence.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The octets go to the meter as they are; a write among them is carried out.</source>
        <translation>Les octets vont tels quels au compteur ; une écriture parmi eux est exécutée.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The parameter id that stands before the function command word; which one real meters use is not known.</source>
        <translation>L&apos;identifiant de paramètre qui précède le mot de commande de fonction ; celui qu&apos;utilisent les vrais compteurs n&apos;est pas connu.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The port then speaks TLS only, or no TLS at all. Without the right certificate the meter cannot be reached any more.</source>
        <translation>Le port ne parle ensuite que TLS, ou plus du tout. Sans le bon certificat, le compteur n&apos;est plus joignable.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The protocol has no command that sets the clock of a gateway; one that is off is a case for its maker.</source>
        <translation>Le protocole n&apos;a pas de commande pour mettre à l&apos;heure l&apos;horloge d&apos;une passerelle ; une horloge décalée relève de son fabricant.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds three voltages</source>
        <translation>La relève contient trois tensions</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds voltages</source>
        <translation>La relève contient les tensions</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout is cut</source>
        <translation>La relève est tronquée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The reference head-end ignores what a dashboard sends.</source>
        <translation>La tête de réseau de référence ignore ce qu&apos;envoie un tableau de bord.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The register is read before and after. Turkish meters lock writing for 6 h after three wrong passwords.</source>
        <translation>Le registre est lu avant et après. Les compteurs turcs bloquent l&apos;écriture pendant 6 h après trois mots de passe erronés.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The running transaction, else the last; or one by its id or number.</source>
        <translation>La transaction en cours, sinon la dernière ; ou une par son identifiant ou numéro.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same meter answers, and its register has not gone backwards.</source>
        <translation>Le même compteur répond, et son registre n&apos;a pas reculé.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same module answers.</source>
        <translation>Le même module répond.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the meter has to be ready and idle.</source>
        <translation>Le numéro de série doit être celui saisi pour cet appareil, et le compteur doit être prêt et au repos.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device, and the readout whole.</source>
        <translation type="vanished">Le numéro de série doit être celui saisi pour cet appareil, et la relève entière.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the readout whole. The next steps judge what it holds; one of them that is done again reads it anew.</source>
        <translation>Le numéro de série doit être celui saisi pour cet appareil, et la relève entière. Les étapes suivantes jugent ce qu&apos;elle contient ; l&apos;une d&apos;elles, refaite, la relit.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device.</source>
        <translation type="vanished">Le numéro de série doit être celui saisi pour cet appareil.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device. The next steps judge what was read here; one of them that is done again reads it anew.</source>
        <translation>Le numéro de série doit être celui saisi pour cet appareil. Les étapes suivantes jugent ce qui a été lu ici ; l&apos;une d&apos;elles, refaite, le relit.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>The service signs its events with it. May be empty only while listening on this computer alone.</source>
        <translation>Le service signe ses événements avec lui. Ne peut être vide que si l&apos;écoute se fait sur cet ordinateur seul.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The session is closed, and the same meter answers a new sign-on.</source>
        <translation>La session est fermée, et le même compteur répond à une nouvelle ouverture de session.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware loses two frames that arrive in one read.</source>
        <translation>Le micrologiciel d&apos;origine perd deux trames qui arrivent en une seule lecture.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware takes an orderly close for data: it spins at full load and never connects again until it is restarted. Close with a reset (DROP_MODULE) unless that is what you test.</source>
        <translation>Le micrologiciel d&apos;origine prend une fermeture en ordre pour des données : il tourne à pleine charge et ne se reconnecte plus avant un redémarrage. Fermez par une réinitialisation (DROP_MODULE), sauf si c&apos;est ce que vous testez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched off.</source>
        <translation>L&apos;alimentation derrière ce compteur est mise hors tension.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched on.</source>
        <translation>L&apos;alimentation derrière ce compteur est mise sous tension.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The supply went off and on again</source>
        <translation>L&apos;alimentation a été coupée puis rétablie</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time is sent as it is entered here: every wait and every retry makes it late.</source>
        <translation>L&apos;heure est envoyée telle qu&apos;elle est saisie ici : chaque attente et chaque nouvelle tentative la met en retard.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time of day at the grid.</source>
        <translation>L&apos;heure au lieu du réseau électrique.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction after two minutes</source>
        <translation>La transaction après deux minutes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction ends for good and its record is signed.</source>
        <translation>La transaction se termine définitivement et son enregistrement est signé.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The transaction ends for good.</source>
        <translation>La transaction se termine définitivement.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction is running</source>
        <translation>La transaction est en cours</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The vendor counts every token for credit as a sale.</source>
        <translation>Le fournisseur compte chaque jeton de crédit comme une vente.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Then it is broken off.</source>
        <translation>Elle est alors interrompue.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Then the association ends, so that others may read the meter.</source>
        <translation>L&apos;association se termine alors, afin que d&apos;autres puissent lire le compteur.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Third</source>
        <translation>Troisième</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>This certificate is pinned</source>
        <translation>Ce certificat est épinglé</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>This computer&apos;s address that the device reaches; 127.0.0.1 takes local ones only. All devices with the same address and port share one hub.</source>
        <translation>Adresse de cet ordinateur que l&apos;appareil atteint ; 127.0.0.1 n&apos;accepte que les locaux. Tous les appareils de même adresse et de même port partagent un serveur.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>This connection only listens; choose another mode in it.</source>
        <translation>Cette connexion ne fait qu&apos;écouter ; choisissez-y un autre mode.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the meter; choose a role that has it.</source>
        <translation>Cette connexion joue le compteur ; choisissez un rôle qui l&apos;a.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module between TCP and a line; choose a role that has it.</source>
        <translation>Cette connexion joue le module entre TCP et une ligne ; choisissez un rôle qui l&apos;a.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module; choose a role that has it.</source>
        <translation>Cette connexion joue le module ; choisissez un rôle qui l&apos;a.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a module below this server.</source>
        <translation>Cette connexion joue le serveur ; choisissez un module sous ce serveur.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a role that has it.</source>
        <translation>Cette connexion joue le serveur ; choisissez un rôle qui l&apos;a.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>This is a concentrator; only its state is watched.</source>
        <translation>Ceci est un concentrateur ; seul son état est surveillé.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>This is a gateway; choose one of its meters in the tree.</source>
        <translation>Ceci est une passerelle ; choisissez l&apos;un de ses compteurs dans l&apos;arborescence.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>This is a gateway; only its state is watched.</source>
        <translation>Ceci est une passerelle ; seul son état est surveillé.</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>This is a head-end; it does no command of a meter.</source>
        <translation>Ceci est une tête de réseau ; elle n&apos;exécute aucune commande de compteur.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter cannot limit the power; the charger does.</source>
        <translation>Ce compteur ne peut pas limiter la puissance ; la borne le fait.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter holds no credit.</source>
        <translation>Ce compteur ne contient pas de crédit.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter measures and signs; it has no relay. The charger switches the power.</source>
        <translation>Ce compteur mesure et signe ; il n&apos;a pas de relais. La borne commute la puissance.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>This service also sets the meter&apos;s clock to midnight (00:00:00).</source>
        <translation>Ce service règle aussi l&apos;horloge du compteur sur minuit (00:00:00).</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Three accounts at the vendor&apos;s service.</source>
        <translation>Trois comptes auprès du service du fournisseur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Three cycles of the device at least.</source>
        <translation>Trois cycles de l&apos;appareil au moins.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Three letters.</source>
        <translation>Trois lettres.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Three phases</source>
        <translation>Triphasé</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Through ChirpStack, with an API token.</source>
        <translation>Par ChirpStack, avec un jeton d&apos;API.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Thursday</source>
        <translation>jeudi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time after</source>
        <translation>Heure après</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time before</source>
        <translation>Heure avant</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between live values</source>
        <translation>Temps entre valeurs instantanées</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between them</source>
        <translation>Temps entre elles</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time of the meter</source>
        <translation>Heure du compteur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Time of the reset</source>
        <translation>Heure de la remise à zéro</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time status</source>
        <translation>État de l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Time zone</source>
        <translation>Fuseau horaire</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time zone of the meter</source>
        <translation>Fuseau horaire du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Times</source>
        <translation>Temporisations</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>To</source>
        <translation>À</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>To the head-end and back</source>
        <translation>Aller-retour à la tête de réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>To the meter through the module, in writes of at most the set size: one write is one frame there.</source>
        <translation>Au compteur par le module, en écritures d&apos;au plus la taille réglée : une écriture y est une trame.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Token</source>
        <translation>Jeton</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of the device</source>
        <translation>Jeton de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of this dashboard</source>
        <translation>Jeton de ce tableau de bord</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Token plugin</source>
        <translation>Module de jetons</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Token service</source>
        <translation>Service de jetons</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up</source>
        <translation>Recharger</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up {device}</source>
        <translation>Recharger {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Transaction</source>
        <translation>Transaction</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to connect, beyond the first</source>
        <translation>Tentatives de connexion après la première</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to start or stop, beyond the first</source>
        <translation>Tentatives de démarrage ou d&apos;arrêt après la première</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Trust in the key</source>
        <translation>Confiance dans la clé</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Trusted certificate</source>
        <translation>Certificat de confiance</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Try the usual rates and formats, two times each; what works is entered in the connection.</source>
        <translation>Essayer les débits et formats usuels, deux fois chacun ; ce qui fonctionne est inscrit dans la connexion.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tuesday</source>
        <translation>mardi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish (R2, W2)</source>
        <translation>turque (R2, W2)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 2</source>
        <translation>Turquie, génération 2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 3</source>
        <translation>Turquie, génération 3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off</source>
        <translation>Mettre hors tension</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off {device}</source>
        <translation>Mettre {device} hors tension</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on</source>
        <translation>Mettre sous tension</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on {device}</source>
        <translation>Mettre {device} sous tension</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Two frames in one write</source>
        <translation>Deux trames en une écriture</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Two frames in one write. The stock firmware loses both.</source>
        <translation>Deux trames en une écriture. Le micrologiciel d&apos;origine perd les deux.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Type</source>
        <translation>Type</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Type of its parameter</source>
        <translation>Type de son paramètre</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>U(L2) lags U(L1) by 120° and U(L3) by 240° where the field turns clockwise; 240° and 120° are two phases swapped.</source>
        <translation>U(L2) est en retard sur U(L1) de 120° et U(L3) de 240° si le champ tourne à droite ; 240° et 120° signifient deux phases interverties.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>UD</source>
        <translation>UD</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>UNDEFINED</source>
        <translation>UNDEFINED</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>UTC minus local time (standard)</source>
        <translation>UTC moins heure locale (norme)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for MQTT and for registering meters.</source>
        <translation>UUID ; requis pour MQTT et pour enregistrer des compteurs.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for registering meters.</source>
        <translation>UUID ; requis pour enregistrer des compteurs.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for the gateways&apos; state when the API token belongs to a tenant.</source>
        <translation>UUID ; requis pour l&apos;état des passerelles quand le jeton d&apos;API appartient à un locataire.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>UV</source>
        <translation>UV</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Until the first character of an answer.</source>
        <translation>Jusqu&apos;au premier caractère d&apos;une réponse.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Unverified on hardware; on and off from a credit read are safe either way.</source>
        <translation>Non vérifié sur matériel ; l&apos;état tiré d&apos;une lecture du crédit est sûr dans les deux cas.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Up to 15 characters, as on the meter.</source>
        <translation>Jusqu&apos;à 15 caractères, comme sur le compteur.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Up to 250 characters; only newer firmware (v2) takes it.</source>
        <translation>Jusqu&apos;à 250 caractères ; seuls les micrologiciels récents (v2) le prennent.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 300 W.</source>
        <translation>Jusqu&apos;à la limite documentée de 300 W.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 700 W.</source>
        <translation>Jusqu&apos;à la limite documentée de 700 W.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update firmware</source>
        <translation>Mettre à jour le micrologiciel</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update {device}</source>
        <translation>Mettre à jour {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for maintenance</source>
        <translation>Utilisateur pour la maintenance</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for sales</source>
        <translation>Utilisateur pour les ventes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for tasks</source>
        <translation>Utilisateur pour les tâches</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>VDEW (R5, W5)</source>
        <translation>VDEW (R5, W5)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Valid for</source>
        <translation>Validité</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid from</source>
        <translation>Valable à partir du</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid until</source>
        <translation>Valable jusqu&apos;au</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Voltage</source>
        <translation>Tension</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L1</source>
        <translation>Tension L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L2</source>
        <translation>Tension L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L3</source>
        <translation>Tension L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage by your own instrument</source>
        <translation>Tension selon votre propre instrument</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of each phase</source>
        <translation>Tension de chaque phase</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase A</source>
        <translation>Tension de la phase A</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase B</source>
        <translation>Tension de la phase B</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase C</source>
        <translation>Tension de la phase C</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage reversed</source>
        <translation>Tension inversée</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages</source>
        <translation>Tensions</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages of the other phases</source>
        <translation>Tensions des autres phases</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait</source>
        <translation>Attente</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a late result</source>
        <translation>Attente d&apos;un résultat tardif</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a load profile</source>
        <translation>Attente d&apos;une courbe de charge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for a message</source>
        <translation>Attente d&apos;un message</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a readout</source>
        <translation>Attente d&apos;une relève</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Wait for an answer</source>
        <translation>Attente d&apos;une réponse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for data</source>
        <translation>Attente de données</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wake-up</source>
        <translation>Réveil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Warn from</source>
        <translation>Avertir à partir de</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Watched as a dashboard does, by address and token.</source>
        <translation>Observé comme par un tableau de bord, par adresse et jeton.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Webhook secret</source>
        <translation>Secret du webhook</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Webhook token</source>
        <translation>Jeton du webhook</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Wednesday</source>
        <translation>mercredi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What</source>
        <translation>Contenu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What E2 does is up to the manufacturer; it may reset the meter.</source>
        <translation>L&apos;effet de E2 dépend du fabricant ; il peut réinitialiser le compteur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What ends every conversation.</source>
        <translation>Ce qui termine chaque échange.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What happens between the two sides.</source>
        <translation>Ce qui se passe entre les deux côtés.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What is said of a parameter that does not stand in the answers.</source>
        <translation>Ce qui est dit d&apos;un paramètre absent des réponses.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What stands in the brackets of the request; mostly nothing.</source>
        <translation>Ce qui figure entre les parenthèses de la requête ; le plus souvent rien.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>What the customer has bought and not used is lost.</source>
        <translation>Ce que le client a acheté et n&apos;a pas utilisé est perdu.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>What the meter holds, and what may be read.</source>
        <translation>Ce que contient le compteur, et ce qui peut être lu.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>What the service counts: queues, finished commands, events, and what it ignored.</source>
        <translation>Ce que compte le service : files d&apos;attente, commandes terminées, événements, et ce qu&apos;il a ignoré.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What the stock firmware does is quectel.</source>
        <translation>Ce que fait le micrologiciel d&apos;origine est quectel.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Whatever stands there is sent, right or wrong.</source>
        <translation>Tout ce qui y figure est envoyé, juste ou faux.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where it is off, start again with setting the clock allowed, or set it by hand and do the step again.</source>
        <translation>Si elle est décalée, recommencez en autorisant la mise à l&apos;heure, ou réglez-la à la main et refaites l&apos;étape.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where this fails, compare the fingerprint, switch TLS on with the command Switch TLS, pin the certificate in the connection, and do the step again. This flow does not switch TLS by itself.</source>
        <translation>En cas d&apos;échec, comparez l&apos;empreinte, activez TLS par la commande Commuter TLS, épinglez le certificat dans la connexion, et refaites l&apos;étape. Cette procédure ne commute pas TLS d&apos;elle-même.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Whether the gateway keeps what it has told once is up to its storage.</source>
        <translation>La passerelle garde ou non ce qu&apos;elle a dit une fois, selon sa mémoire.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who is connected, with counters.</source>
        <translation>Qui est connecté, avec compteurs d&apos;événements.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Who the module is, its signal, its access point and, where it is wanted, the way to the head-end and back. For a connection with the role Meter. Stock firmware does not answer on channels 23 and 24: it fails at the first step.</source>
        <translation>Qui est le module, son signal, son point d&apos;accès et, si voulu, l&apos;aller-retour à la tête de réseau. Pour une connexion dans le rôle Compteur. Le micrologiciel d&apos;origine ne répond pas sur les canaux 23 et 24 : il échoue à la première étape.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who the program plays on the link.</source>
        <translation>Qui le programme joue sur la liaison.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Wi-Fi strength</source>
        <translation>Niveau Wi-Fi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>With * every directive on the gateway is deleted.</source>
        <translation>Avec *, toutes les directives de la passerelle sont supprimées.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>With a zone; empty: this computer&apos;s time now.</source>
        <translation>Avec un fuseau ; vide : l&apos;heure actuelle de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>With a zone; empty: this computer&apos;s time when it is sent.</source>
        <translation>Avec un fuseau ; vide : l&apos;heure de cet ordinateur à l&apos;envoi.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the antenna and the cabinet as they stay: close the door before.</source>
        <translation>Antenne et coffret dans leur état définitif : fermez la porte avant.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the meter&apos;s own certificate pinned in the connection.</source>
        <translation>Avec le propre certificat du compteur épinglé dans la connexion.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Wrapper (TCP)</source>
        <translation>Wrapper (TCP)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Write attribute</source>
        <translation>Écrire un attribut</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write meter parameter</source>
        <translation>Écrire un paramètre du compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write module parameter</source>
        <translation>Écrire un paramètre du module</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write register</source>
        <translation>Écrire un registre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write to {device}</source>
        <translation>Écrire dans {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write with</source>
        <translation>Écrire avec</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Year</source>
        <translation>Année</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>addresses of hosts and network cards</source>
        <translation>adresses d&apos;hôtes et de cartes réseau</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>after a sign-on at 300 Bd (mode E)</source>
        <translation>après une ouverture de session à 300 Bd (mode E)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>as short as possible</source>
        <translation>la plus courte possible</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the connection</source>
        <translation>comme la connexion</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as the meter says</source>
        <translation>comme le dit le compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the parameter has it, else STR</source>
        <translation>comme le paramètre l&apos;a, sinon STR</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as usual</source>
        <translation>usage courant</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>at once</source>
        <translation>aussitôt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>auto: begin with quectel and follow the peer</source>
        <translation>auto : commencer par quectel et suivre l&apos;autre extrémité</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>battery meter</source>
        <translation>compteur à pile</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>by service (glo)</source>
        <translation>par service (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>by the meter</source>
        <translation>selon le compteur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>changed parameters (P.99)</source>
        <translation>paramètres modifiés (P.99)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>customer and order references</source>
        <translation>références de clients et de commandes</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>data</source>
        <translation>donnée</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>date-time (19)</source>
        <translation>date-heure (19)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>demand register</source>
        <translation>registre de puissance appelée</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>enter its plugin at the head-end (attribute plugin), for example calin-chirpstack</source>
        <translation>saisissez son module à la tête de réseau (attribut plugin), par exemple calin-chirpstack</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>essential (HPS)</source>
        <translation>essentiel (HPS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>events (P.98)</source>
        <translation>événements (P.98)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>everything</source>
        <translation>tout</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>extended register</source>
        <translation>registre étendu</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>find out</source>
        <translation>à déterminer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>for writes only</source>
        <translation>écritures seulement</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>ftp://user:password@192.168.1.5:21/path/file.bin</source>
        <translation>ftp://user:password@192.168.1.5:21/path/file.bin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>full (FS)</source>
        <translation>complet (FS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>general (glo)</source>
        <translation>général (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>half a frame</source>
        <translation>une demi-trame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>heat meter (UH50, T550)</source>
        <translation>compteur de chaleur (UH50, T550)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>history</source>
        <translation>historique</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>keys</source>
        <translation>clés</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>local time minus UTC</source>
        <translation>heure locale moins UTC</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>manufacturer&apos;s own (HLS, mechanism 2)</source>
        <translation>propre au fabricant (HLS, mécanisme 2)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of devices and people</source>
        <translation>noms d&apos;appareils et de personnes</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of sites and grids, and other places</source>
        <translation>noms de sites, réseaux et autres lieux</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>national practice</source>
        <translation>pratique nationale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>no closing flag</source>
        <translation>sans fanion de fin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>one</source>
        <translation>une</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>outages</source>
        <translation>coupures</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>password (LLS)</source>
        <translation>mot de passe (LLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>power quality</source>
        <translation>qualité de l&apos;énergie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>public domain</source>
        <translation>domaine public</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>quectel: length, no stuffing, FCS high octet first</source>
        <translation>quectel : longueur, sans bourrage, FCS octet fort d&apos;abord</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw text</source>
        <translation>texte brut</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw, in hex</source>
        <translation>brut, en hexadécimal</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>register</source>
        <translation>registre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>rfc1662: octet stuffing, FCS low octet first</source>
        <translation>rfc1662 : bourrage d&apos;octets, FCS octet faible d&apos;abord</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>see its text</source>
        <translation>voir son texte</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>serial numbers of meters, modules and SIM cards</source>
        <translation>numéros de série (compteurs, modules, SIM)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>short readout</source>
        <translation>relève courte</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard</source>
        <translation>standard</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard (R1, W1)</source>
        <translation>standard (R1, W1)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>the port</source>
        <translation>le port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>three</source>
        <translation>trois</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>tokens of 20 digits</source>
        <translation>jetons de 20 chiffres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two GET requests</source>
        <translation>deux requêtes GET</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two transparent payloads</source>
        <translation>deux charges utiles transparentes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>warnings</source>
        <translation>avertissements</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong FCS</source>
        <translation>FCS faux</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong length</source>
        <translation>longueur fausse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>ws://host:port or wss://host:port, without user and query.</source>
        <translation>ws://host:port ou wss://host:port, sans utilisateur ni requête.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>{device.name} says {fact.state} in mode {fact.mode}. Which battery voltage do its live values show?</source>
        <translation>{device.name} indique {fact.state} en mode {fact.mode}. Quelle tension de batterie ses valeurs instantanées montrent-elles ?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>{device_id} stands for the device; some head-ends want /ws/device/{device_id}.</source>
        <translation>{device_id} représente l&apos;appareil ; certaines têtes de réseau veulent /ws/device/{device_id}.</translation>
    </message>
    <message>
        <location filename="../../ui/model_words.py"/>
        <source>{what}, tariff {number}</source>
        <translation>{what}, tarif {number}</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>±HH:MM from -11:00 to +14:00</source>
        <translation>±HH:MM de -11:00 à +14:00</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>±HH:MM from -11:00 to +14:00; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>±HH:MM de -11:00 à +14:00 ; vide : le réglage propre du compteur reste tel quel.</translation>
    </message>
</context>
<context>
    <name>NoteDialog</name>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add a note</source>
        <translation>Ajouter une note</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add the note</source>
        <translation>Ajouter la note</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave as it was</source>
        <translation>Laisser comme avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave without adding</source>
        <translation>Quitter sans ajouter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note</source>
        <translation>Note</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must be at most {most} characters, not {count}.</source>
        <translation>La note doit compter au plus {most} caractères, pas {count}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must not be empty.</source>
        <translation>La note ne doit pas être vide.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Remove the note</source>
        <translation>Retirer la note</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Save the note</source>
        <translation>Enregistrer la note</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Still needed: a text.</source>
        <translation>Encore requis : un texte.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>What you saw or did. Ctrl+Enter keeps it.</source>
        <translation>Ce que vous avez vu ou fait. Ctrl+Entrée l&apos;enregistre.</translation>
    </message>
</context>
<context>
    <name>NoticeBar</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Dismiss</source>
        <translation>Ignorer</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Notice</source>
        <translation>Avis</translation>
    </message>
</context>
<context>
    <name>Objects</name>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active absolute</source>
        <translation>Puissance active absolue</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active export</source>
        <translation>Puissance active injectée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active import</source>
        <translation>Puissance active soutirée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active net</source>
        <translation>Puissance active nette</translation>
    </message>
    <message>
        <source>Active {what}</source>
        <translation type="vanished">Puissance active {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Angles</source>
        <translation>Angles</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent export</source>
        <translation>Puissance apparente injectée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent import</source>
        <translation>Puissance apparente soutirée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Association</source>
        <translation>Association</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Clock</source>
        <translation>Horloge</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cold water</source>
        <translation>Eau froide</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cooling</source>
        <translation>Froid</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Country specific</source>
        <translation>Spécifique au pays</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Errors</source>
        <translation>Erreurs</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Firmware image</source>
        <translation>Image du micrologiciel</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Gas</source>
        <translation>Gaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General</source>
        <translation>Général</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General and identification</source>
        <translation>Général et identification</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>HDLC setup</source>
        <translation>Configuration HDLC</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat</source>
        <translation>Chaleur</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat cost allocator</source>
        <translation>Répartiteur de frais de chauffage</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Hot water</source>
        <translation>Eau chaude</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Limiter</source>
        <translation>Limiteur</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Lists</source>
        <translation>Listes</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Logical device name</source>
        <translation>Nom du dispositif logique</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Modem</source>
        <translation>Modem</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Optical port</source>
        <translation>Port optique</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other medium</source>
        <translation>Autre fluide</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other names</source>
        <translation>Autres noms</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles</source>
        <translation>Profils</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles and logs</source>
        <translation>Profils et journaux</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive export</source>
        <translation>Puissance réactive injectée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive import</source>
        <translation>Puissance réactive soutirée</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant I</source>
        <translation>Puissance réactive quadrant I</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant II</source>
        <translation>Puissance réactive quadrant II</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant III</source>
        <translation>Puissance réactive quadrant III</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant IV</source>
        <translation>Puissance réactive quadrant IV</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register activation</source>
        <translation>Activation de registres</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register monitoring</source>
        <translation>Surveillance de registres</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>SAP assignment</source>
        <translation>Affectation SAP</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Schedule</source>
        <translation>Planification</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Scripts</source>
        <translation>Scripts</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Security</source>
        <translation>Sécurité</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Service entries</source>
        <translation>Entrées de service</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Single actions</source>
        <translation>Actions uniques</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Special days</source>
        <translation>Jours spéciaux</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Standard readouts</source>
        <translation>Relèves standard</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>TCP, IP and network setup</source>
        <translation>Configuration TCP, IP et réseau</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Tariff calendar</source>
        <translation>Calendrier tarifaire</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/objects.py"/>
        <source>{count} entries</source>
        <translation>
            <numerusform>{count} entrée</numerusform>
            <numerusform>{count} entrées</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>{what} without a known name</source>
        <translation>{what} sans nom connu</translation>
    </message>
</context>
<context>
    <name>ObjectsPanel</name>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By OBIS code</source>
        <translation>Par code OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By class</source>
        <translation>Par classe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Choose an attribute to read it.</source>
        <translation>Choisissez un attribut pour le lire.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Class or access</source>
        <translation>Classe ou accès</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Group the objects by</source>
        <translation>Grouper les objets par</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Looking for the object list of {name}…</source>
        <translation>Recherche de la liste d&apos;objets de {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see its objects.</source>
        <translation>Aucun compteur choisi.
Choisissez-en un dans l&apos;arborescence à gauche pour voir ses objets.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Not read yet. Double-click the attribute, or press Read.</source>
        <translation>Pas encore lu. Double-cliquez sur l&apos;attribut, ou appuyez sur Lire.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Rien n&apos;a été envoyé. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects</source>
        <translation>Objets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects of the meter</source>
        <translation>Objets du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Octets</source>
        <translation>Octets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read</source>
        <translation>Lire</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read at</source>
        <translation>Lu à</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read list again</source>
        <translation>Relire la liste</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read object list</source>
        <translation>Lire la liste d&apos;objets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Search objects</source>
        <translation>Rechercher des objets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Show its command</source>
        <translation>Afficher sa commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The meter does not let this client read this attribute.</source>
        <translation>Le compteur ne laisse pas ce client lire cet attribut.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list could not be read. {why}</source>
        <translation>La liste d&apos;objets n&apos;a pas pu être lue. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list is asked for already.</source>
        <translation>La liste d&apos;objets est déjà demandée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} has not been read yet.</source>
        <translation>La liste d&apos;objets de {name} n&apos;a pas encore été lue.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} is asked for: {status}. {why}</source>
        <translation>La liste d&apos;objets de {name} est demandée : {status}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Type</source>
        <translation>Type</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value of the attribute</source>
        <translation>Valeur de l&apos;attribut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>method {number}  {name}</source>
        <translation>méthode {number}  {name}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/objects.py"/>
        <source>{count} objects, list of {time} {zone}</source>
        <translation>
            <numerusform>{count} objet, liste du {time} {zone}</numerusform>
            <numerusform>{count} objets, liste du {time} {zone}</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{found} of {count} objects</source>
        <translation>{found} objets sur {count}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} has no object list. Meters that speak DLMS/COSEM have one.</source>
        <translation>{name} n&apos;a pas de liste d&apos;objets. Les compteurs DLMS/COSEM en ont une.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} told of no object. Read the list again, or connect with another client address.</source>
        <translation>{name} n&apos;a annoncé aucun objet. Relisez la liste, ou connectez-vous avec une autre adresse de client.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name}, version {version}</source>
        <translation>{name}, version {version}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{status}, {time} {zone}.  {why}</source>
        <translation>{status}, {time} {zone}.  {why}</translation>
    </message>
</context>
<context>
    <name>OutcomeQuestion</name>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>It was done</source>
        <translation>Cela a été fait</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>It was not done</source>
        <translation>Cela n&apos;a pas été fait</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Leave it open</source>
        <translation>Laisser ouvert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>No read shows it. Look at the meter, then say what you see; it stays in the log.</source>
        <translation>Aucune lecture ne le montre. Regardez le compteur, puis dites ce que vous voyez ; cela reste dans le journal.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Say what {device} shows</source>
        <translation>Dire ce qu&apos;indique {device}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>What the meter shows</source>
        <translation>Ce qu&apos;indique le compteur</translation>
    </message>
</context>
<context>
    <name>ParamField</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Choose…</source>
        <translation>Choisir…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Now</source>
        <translation>Maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at least {low}{unit}</source>
        <translation>au moins {low}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {count} bytes</source>
        <translation>au plus {count} octets</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {high}{unit}</source>
        <translation>au plus {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>yes</source>
        <translation>oui</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{low} to {high}{unit}</source>
        <translation>{low} à {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{title} (optional)</source>
        <translation>{title} (facultatif)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– choose –</source>
        <translation>– choisir –</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– none –</source>
        <translation>– aucun –</translation>
    </message>
</context>
<context>
    <name>PersonsCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A note is needed here: write what you saw.</source>
        <translation>Une note est requise ici : écrivez ce que vous avez vu.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed here: drop it on this page, or choose its file.</source>
        <translation>Une photo est requise ici : déposez-la sur cette page, ou choisissez son fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed: drop it here, or choose its file.</source>
        <translation>Une photo est requise : déposez-la ici, ou choisissez son fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo may help: drop it here, or choose its file.</source>
        <translation>Une photo peut aider : déposez-la ici, ou choisissez son fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo</source>
        <translation>Ajouter une photo</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo…</source>
        <translation>Ajouter une photo…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer no</source>
        <translation>Répondre non</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer yes</source>
        <translation>Répondre oui</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Keep the answer</source>
        <translation>Garder la réponse</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (needed)</source>
        <translation>Note (requise)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (optional)</source>
        <translation>Note (facultative)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Pictures ({pattern})</source>
        <translation>Images ({pattern})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Remove the photo</source>
        <translation>Retirer la photo</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{n} photos. Open one to see it large.</source>
        <translation>{n} photos. Ouvrez-en une pour l&apos;agrandir.</translation>
    </message>
</context>
<context>
    <name>PhasorDiagram</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor diagram</source>
        <translation>Diagramme de Fresnel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>inner ring {size} A</source>
        <translation>cercle intérieur {size} A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>outer ring {size} V</source>
        <translation>cercle extérieur {size} V</translation>
    </message>
</context>
<context>
    <name>PhasorView</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Angle</source>
        <translation>Angle</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Behind U1</source>
        <translation>Retard sur U1</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor</source>
        <translation>Vecteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>To its voltage</source>
        <translation>Par rapport à sa tension</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Values of the phasors</source>
        <translation>Valeurs des vecteurs</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>What the phasors say</source>
        <translation>Ce que disent les vecteurs</translation>
    </message>
</context>
<context>
    <name>Phasors</name>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No rotating field: the voltages are not 120° apart. Look at the wiring.</source>
        <translation>Pas de champ tournant : les tensions ne sont pas décalées de 120°. Vérifiez le câblage.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No voltage on {names}: nothing is drawn for it.</source>
        <translation>Pas de tension sur {names} : rien n&apos;y est tracé.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not drawn, because the current or its angle is not in the readout: {names}.</source>
        <translation>Non tracé, car le courant ou son angle ne figure pas dans la relève : {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not in the readout: {names}.</source>
        <translation>Absent de la relève : {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>One phase only.</source>
        <translation>Une seule phase.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L2-L3 (right).</source>
        <translation>Champ tournant L1-L2-L3 (à droite).</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L3-L2 (left): two phases are exchanged.</source>
        <translation>Champ tournant L1-L3-L2 (à gauche) : deux phases sont interverties.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The meter gives no angle between the voltages: 120° from phase to phase is assumed for {names}.</source>
        <translation>Le compteur ne donne pas l&apos;angle entre les tensions : 120° d&apos;une phase à l&apos;autre sont supposés pour {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The rotating field is not known: not all its angles were measured.</source>
        <translation>Le champ tournant n&apos;est pas connu : ses angles n&apos;ont pas tous été mesurés.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Whether the current lags or leads is not told for {names}: it is drawn lagging, as with motors and coils.</source>
        <translation>Le compteur n&apos;indique pas si le courant est en retard ou en avance pour {names} : il est tracé en retard, comme avec moteurs et bobines.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>assumed 120°</source>
        <translation>120° supposés</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>from the power factor</source>
        <translation>d&apos;après le facteur de puissance</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>measured</source>
        <translation>mesuré</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>with U{n}</source>
        <translation>en phase avec U{n}</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° before U{n}</source>
        <translation>{angle}° en avance sur U{n}</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U1</source>
        <translation>{angle}° en retard sur U1</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U{n}</source>
        <translation>{angle}° en retard sur U{n}</translation>
    </message>
</context>
<context>
    <name>PictureList</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Photos</source>
        <translation>Photos</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be shown here.</source>
        <translation>{name} ne peut pas être affiché ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name}, {size} kB</source>
        <translation>{name}, {size} kB</translation>
    </message>
</context>
<context>
    <name>PlanEditor</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Before it can start: {first}</source>
        <translation>Avant de pouvoir démarrer : {first}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Before it can start: {first} And {count} more.</source>
        <translation>Avant de pouvoir démarrer : {first} Et {count} de plus.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Limits</source>
        <translation>Limites</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One repeat</source>
        <translation>Une répétition</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One thing to know before the start</source>
        <translation>Un point à connaître avant le début</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Start the test</source>
        <translation>Démarrer l&apos;essai</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>To know before the start</source>
        <translation>À savoir avant le début</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What is known of the reference</source>
        <translation>Ce qui est connu de l&apos;étalon</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What to look at first</source>
        <translation>À regarder en premier</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{count} things to know before the start</source>
        <translation>{count} points à connaître avant le début</translation>
    </message>
</context>
<context>
    <name>PointsTable</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A copy of the chosen one, below it (Ctrl+Return).</source>
        <translation>Une copie de celui choisi, en dessous (Ctrl+Entrée).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Add load point</source>
        <translation>Ajouter un point de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points</source>
        <translation>Points de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Put back what was removed</source>
        <translation>Remettre ce qui a été retiré</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Remove load point</source>
        <translation>Retirer le point de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen ones (Del).</source>
        <translation>Ceux qui sont choisis (Suppr).</translation>
    </message>
</context>
<context>
    <name>PortPicker</name>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>A port, or socket://host:port or rfc2217://host:port</source>
        <translation>Un port, ou socket://host:port ou rfc2217://host:port</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>Looking for ports…</source>
        <translation>Recherche de ports…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>No serial port is connected to this computer.</source>
        <translation>Aucun port série n&apos;est connecté à cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>The ports of this computer could not be listed. Type an address.</source>
        <translation>Les ports de cet ordinateur n&apos;ont pas pu être listés. Saisissez une adresse.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (not plugged in)</source>
        <translation>{address}  (non branché)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (now {port})</source>
        <translation>{address}  (maintenant {port})</translation>
    </message>
</context>
<context>
    <name>ProfileChart</name>
    <message>
        <location filename="../../ui/widgets/profile_chart.py"/>
        <source>Curves of the load profile; the table holds the same values</source>
        <translation>Courbes de la courbe de charge ; le tableau contient les mêmes valeurs</translation>
    </message>
</context>
<context>
    <name>ProfileModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Status</source>
        <translation>Statut</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no value of this channel for {time}.</source>
        <translation>Le compteur n&apos;a envoyé aucune valeur de cette voie pour {time}.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no values from {time} on for %n periods.</source>
        <translation>
            <numerusform>Le compteur n&apos;a envoyé aucune valeur à partir de {time} pendant %n période.</numerusform>
            <numerusform>Le compteur n&apos;a envoyé aucune valeur à partir de {time} pendant %n périodes.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time of the meter</source>
        <translation>Heure du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>gap</source>
        <translation>lacune</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>gap: %n periods</source>
        <translation>
            <numerusform>lacune : %n période</numerusform>
            <numerusform>lacune : %n périodes</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>QrView</name>
    <message>
        <location filename="../../ui/wizard/qr.py"/>
        <source>QR code of {text}</source>
        <translation>Code QR de {text}</translation>
    </message>
</context>
<context>
    <name>QuantityPicker</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Quantity</source>
        <translation>Grandeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name} ({unit}), no value yet</source>
        <translation>{name} ({unit}), pas encore de valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>– choose –</source>
        <translation>– choisir –</translation>
    </message>
</context>
<context>
    <name>Question</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Do not send</source>
        <translation>Ne pas envoyer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Leave as it is</source>
        <translation>Laisser tel quel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>no</source>
        <translation>non</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>yes</source>
        <translation>oui</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{command}: {device}</source>
        <translation>{command} : {device}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{verb}?</source>
        <translation>{verb} ?</translation>
    </message>
</context>
<context>
    <name>RangeView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>A to B: {0} to {1}.</source>
        <translation>A à B : {0} à {1}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Visible: {0} to {1}.</source>
        <translation>Visible : {0} à {1}.</translation>
    </message>
</context>
<context>
    <name>Reading</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock</source>
        <translation>Horloge</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock set</source>
        <translation>Horloge mise à l&apos;heure</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Detection</source>
        <translation>Détection</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile</source>
        <translation>Courbe de charge</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile nobody waited for</source>
        <translation>Courbe de charge que personne n&apos;attendait</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Log of the device</source>
        <translation>Journal de l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout</source>
        <translation>Relève</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout nobody waited for</source>
        <translation>Relève que personne n&apos;attendait</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good if its character is the zero that gateways lose.</source>
        <translation>Le contrôle de bloc est bon si son caractère est le zéro que perdent les passerelles.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good when the start character is counted, as some meters do.</source>
        <translation>Le contrôle de bloc est bon si le caractère de début est compté, comme le font certains compteurs.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good.</source>
        <translation>Le contrôle de bloc est bon.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is wrong: characters changed on the way. Read the meter again.</source>
        <translation>Le contrôle de bloc est faux : des caractères ont été altérés en route. Lisez le compteur à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The end of the data block is missing, so nothing could be checked.</source>
        <translation>La fin du bloc de données manque, rien n&apos;a donc pu être contrôlé.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no block check, so changed characters would not be seen.</source>
        <translation>Le compteur n&apos;a pas envoyé de contrôle de bloc ; des caractères altérés ne se verraient pas.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>complete</source>
        <translation>complet</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>in doubt</source>
        <translation>douteux</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>incomplete</source>
        <translation>incomplet</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} attempts</source>
        <translation>
            <numerusform>{count} tentative</numerusform>
            <numerusform>{count} tentatives</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} lines</source>
        <translation>
            <numerusform>{count} ligne</numerusform>
            <numerusform>{count} lignes</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} rows, {channels} channels</source>
        <translation>
            <numerusform>{count} ligne, {channels} canaux</numerusform>
            <numerusform>{count} lignes, {channels} canaux</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} values</source>
        <translation>
            <numerusform>{count} valeur</numerusform>
            <numerusform>{count} valeurs</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ReadingBar</name>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Compare it</source>
        <translation>Le comparer</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How it was opened</source>
        <translation>Comment il a été ouvert</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How {name} was opened</source>
        <translation>Comment {name} a été ouvert</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Log open for reading</source>
        <translation>Journal ouvert en lecture</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Open it as a workspace: its links open and its log grows.</source>
        <translation>L&apos;ouvrir comme espace de travail : ses liaisons s&apos;ouvrent et son journal s&apos;allonge.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>READ ONLY</source>
        <translation>LECTURE SEULE</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Replay it</source>
        <translation>Le rejouer</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>See what differs between this log and another one, or within it.</source>
        <translation>Voir ce qui diffère entre ce journal et un autre, ou en son sein.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Watch this log again as if it were live.</source>
        <translation>Revoir ce journal comme s&apos;il était en direct.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Work with it…</source>
        <translation>Travailler avec…</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}, as it stood at {time}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}, dans l&apos;état du {time}. Rien n&apos;est envoyé, et rien n&apos;y est modifié.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}. Rien n&apos;est envoyé, et rien n&apos;y est modifié.</translation>
    </message>
</context>
<context>
    <name>ReadingList</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Size</source>
        <translation>Taille</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
</context>
<context>
    <name>ReadingsPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/readings.py"/>
        <source>%n periods are missing</source>
        <translation>
            <numerusform>%n période manque</numerusform>
            <numerusform>%n périodes manquent</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>As received</source>
        <translation>Tel que reçu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts</source>
        <translation>Tentatives</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts of the detection</source>
        <translation>Tentatives de la détection</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Clock</source>
        <translation>Horloge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Copy</source>
        <translation>Copier</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table</source>
        <translation>Exporter le tableau</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table…</source>
        <translation>Exporter le tableau…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Exported to {file}.</source>
        <translation>Exporté dans {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Identification {text}</source>
        <translation>Identification {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>L&apos;interaction {id} n&apos;est pas dans ce journal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Load profile</source>
        <translation>Courbe de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Looking for readings…</source>
        <translation>Recherche de relevés…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings of {name} yet.
Send it a readout or a load profile.</source>
        <translation>Pas encore de relevés de {name}.
Demandez-lui une relève ou une courbe de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings yet.
Choose a meter in the tree, and send it a readout or a load profile.</source>
        <translation>Pas encore de relevés.
Choisissez un compteur dans l&apos;arborescence, et demandez-lui une relève ou une courbe de charge.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No values have come yet. They appear here as soon as the meter has answered.</source>
        <translation>Aucune valeur n&apos;est encore arrivée. Elles apparaissent ici dès que le compteur a répondu.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Rien n&apos;a été envoyé. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One answer brought several load profiles</source>
        <translation>Une réponse a apporté plusieurs courbes de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One row every {minutes} min</source>
        <translation>Une ligne toutes les {minutes} min</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Only a part arrived. Do not use these values; read the meter again.</source>
        <translation>Seule une partie est arrivée. N&apos;utilisez pas ces valeurs ; lisez le compteur à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Phasors</source>
        <translation>Fresnel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Reading interaction {id} from the log…</source>
        <translation>Lecture de l&apos;interaction {id} dans le journal…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Readings</source>
        <translation>Relevés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Saved as #{number}: the clock is being set.</source>
        <translation>Enregistré sous #{number} : mise à l&apos;heure de l&apos;horloge en cours.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Search values</source>
        <translation>Rechercher des valeurs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Serial number {serial}</source>
        <translation>Numéro de série {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show its command</source>
        <translation>Afficher sa commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show older readings</source>
        <translation>Afficher des relevés plus anciens</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Table (*.csv)</source>
        <translation>Tableau (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Text as received</source>
        <translation>Texte tel que reçu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The device has written no log.</source>
        <translation>L&apos;appareil n&apos;a écrit aucun journal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The selected rows, or all that are shown, to the clipboard</source>
        <translation>Les lignes sélectionnées, ou toutes celles affichées, dans le presse-papiers</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The text is not in the answer. The bytes stand with its command.</source>
        <translation>Le texte n&apos;est pas dans la réponse. Les octets figurent avec sa commande.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This device is no longer in the workspace.</source>
        <translation>Cet appareil n&apos;est plus dans l&apos;espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This result is {label}.</source>
        <translation>Ce résultat est {label}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values</source>
        <translation>Valeurs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values of the readout</source>
        <translation>Valeurs de la relève</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Views of the reading</source>
        <translation>Vues du relevé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Which load profile</source>
        <translation>Quelle courbe de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} n&apos;a pas pu être écrit : {reason}. Choisissez un autre dossier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{found} of {count} rows</source>
        <translation>{found} lignes sur {count}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{time}, {drift}</source>
        <translation>{time}, {drift}</translation>
    </message>
</context>
<context>
    <name>ReadoutModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>As received</source>
        <translation>Tel que reçu</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Further groups</source>
        <translation>Autres groupes</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Unit</source>
        <translation>Unité</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
</context>
<context>
    <name>Reason</name>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>Earlier steps of its commissioning are not done yet.  Goes on when: They are.</source>
        <translation>Des étapes précédentes de sa mise en service ne sont pas encore terminées.  Reprend quand : Elles le sont.</translation>
    </message>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>{cause}  Goes on when: {release}</source>
        <translation>{cause}  Reprend quand : {release}</translation>
    </message>
</context>
<context>
    <name>RecentFiles</name>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>&amp;Forget these files</source>
        <translation>&amp;Oublier ces fichiers</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>No file was opened yet</source>
        <translation>Aucun fichier encore ouvert</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>Open {path}.</source>
        <translation>Ouvrir {path}.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>The list is emptied; the files stay where they are.</source>
        <translation>La liste est vidée ; les fichiers restent où ils sont.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   dans {folder}</translation>
    </message>
</context>
<context>
    <name>RecordingList</name>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Curves</source>
        <translation>Courbes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Duration</source>
        <translation>Durée</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>End ({zone})</source>
        <translation>Fin ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remark</source>
        <translation>Remarque</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start ({zone})</source>
        <translation>Début ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>all</source>
        <translation>toutes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>recording now</source>
        <translation>acquisition en cours</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name}, recording now</source>
        <translation>{name}, acquisition en cours</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{n} s</source>
        <translation>{n} s</translation>
    </message>
</context>
<context>
    <name>RecordingsPanel</name>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>A recording needs a name; it keeps the one it has.</source>
        <translation>Une acquisition doit avoir un nom ; elle garde le sien.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Compare with it</source>
        <translation>Comparer à celle-ci</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Export…</source>
        <translation>Exporter…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Go to</source>
        <translation>Aller à</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name of the next recording</source>
        <translation>Nom de la prochaine acquisition</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>No recordings yet. The log keeps every sample in any case; a recording gives a part of it a name, to find it again, to export it and to compare with it. Start recording when the test begins.</source>
        <translation>Pas encore d&apos;acquisitions. Le journal garde chaque échantillon dans tous les cas ; une acquisition donne un nom à une partie de celui-ci, pour la retrouver, l&apos;exporter et la comparer. Démarrez l&apos;acquisition au début de l&apos;essai.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Only the curves on the chart</source>
        <translation>Seulement les courbes du graphique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recording {n}</source>
        <translation>Acquisition {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recordings</source>
        <translation>Acquisitions</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remove</source>
        <translation>Retirer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Rename</source>
        <translation>Renommer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start recording</source>
        <translation>Démarrer l&apos;acquisition</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Stop recording</source>
        <translation>Arrêter l&apos;acquisition</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Undo</source>
        <translation>Annuler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>What is exported and compared later; the log keeps every curve in any case.</source>
        <translation>Ce qui est exporté et comparé ensuite ; le journal garde toutes les courbes dans tous les cas.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Write a remark</source>
        <translation>Écrire une remarque</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name} was removed. Its samples stay in the log.</source>
        <translation>{name} a été retirée. Ses échantillons restent dans le journal.</translation>
    </message>
</context>
<context>
    <name>RecordsPanel</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Billable: one begin, one end, no finding.</source>
        <translation>Facturable : un début, une fin, aucun constat.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Cable</source>
        <translation>Câble</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key inside the record.</source>
        <translation>Vérifié avec la clé contenue dans l&apos;enregistrement.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key read from the meter.</source>
        <translation>Vérifié avec la clé lue dans le compteur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key stored at commissioning.</source>
        <translation>Vérifié avec la clé conservée à la mise en service.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key typed above.</source>
        <translation>Vérifié avec la clé saisie ci-dessus.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Copy record</source>
        <translation>Copier l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Current</source>
        <translation>Courant</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy</source>
        <translation>Énergie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy (kWh)</source>
        <translation>Énergie (kWh)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export</source>
        <translation>Injection</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record</source>
        <translation>Exporter l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record…</source>
        <translation>Exporter l&apos;enregistrement…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Exported to {file}.</source>
        <translation>Exporté dans {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Faults</source>
        <translation>Défauts</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Identification</source>
        <translation>Identification</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Import</source>
        <translation>Soutirage</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Intermediate record: it has no end reading and is not billable. Read the final record when the meter can be reached again.</source>
        <translation>Enregistrement intermédiaire : il n&apos;a pas de valeur de fin et n&apos;est pas facturable. Lisez l&apos;enregistrement final quand le compteur sera de nouveau joignable.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Key printed on the meter: hexadecimal, base64 or PEM</source>
        <translation>Clé imprimée sur le compteur : hexadécimal, base64 ou PEM</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Kind</source>
        <translation>Type</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Looking for signed records…</source>
        <translation>Recherche d&apos;enregistrements signés…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Meter</source>
        <translation>Compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No key was used.</source>
        <translation>Aucune clé n&apos;a été utilisée.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No signed records yet.
Stop a transaction, or read a record from a meter that signs.</source>
        <translation>Pas encore d&apos;enregistrements signés.
Arrêtez une transaction, ou lisez un enregistrement d&apos;un compteur qui signe.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Not billable, because:</source>
        <translation>Non facturable, car :</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OCMF record (*.ocmf)</source>
        <translation>Enregistrement OCMF (*.ocmf)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Pagination</source>
        <translation>Pagination</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key</source>
        <translation>Clé publique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key printed on the meter</source>
        <translation>Clé publique imprimée sur le compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Readings</source>
        <translation>Relevés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Record as received</source>
        <translation>Enregistrement tel que reçu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Show its command</source>
        <translation>Afficher sa commande</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signature</source>
        <translation>Signature</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed record</source>
        <translation>Enregistrement signé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed records</source>
        <translation>Enregistrements signés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Tariff</source>
        <translation>Tarif</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time in the record</source>
        <translation>Heure dans l&apos;enregistrement</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Transaction</source>
        <translation>Transaction</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Unit</source>
        <translation>Unité</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with the meter&apos;s key</source>
        <translation>Vérifier avec la clé du compteur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with this key</source>
        <translation>Vérifier avec cette clé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>begin</source>
        <translation>début</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>charging</source>
        <translation>en charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end</source>
        <translation>fin</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, abort</source>
        <translation>fin, abandon</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, local</source>
        <translation>fin, locale</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, power failure</source>
        <translation>fin, panne d&apos;alimentation</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, remote</source>
        <translation>fin, à distance</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>exception</source>
        <translation>exception</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>ok</source>
        <translation>ok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>suspended</source>
        <translation>suspendu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>tariff change</source>
        <translation>changement de tarif</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} n&apos;a pas pu être écrit : {reason}. Choisissez un autre dossier.</translation>
    </message>
</context>
<context>
    <name>ReferenceDialog</name>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Curves</source>
        <translation>&amp;Courbes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Move it by hand</source>
        <translation>&amp;Décaler à la main</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Range</source>
        <translation>&amp;Plage</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>A CSV file with a column of times, or a workspace (*.mwk).</source>
        <translation>Un fichier CSV avec une colonne d&apos;heures, ou un espace de travail (*.mwk).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>All of it</source>
        <translation>En entier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Begin at the left &amp;edge of the chart</source>
        <translation>Commencer au &amp;bord gauche du graphique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Curves</source>
        <translation>Courbes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>File</source>
        <translation>Fichier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From</source>
        <translation>De</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From and to by hand</source>
        <translation>De et à, saisis à la main</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Its times count from a start: there is no clock in them.</source>
        <translation>Ses heures comptent à partir d&apos;un début : elles ne donnent pas l&apos;heure d&apos;une horloge.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Leave without adding</source>
        <translation>Quitter sans ajouter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>More than 0 is later.</source>
        <translation>Plus de 0 signifie plus tard.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Move it by</source>
        <translation>Décaler de</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>On the chart from {first} to {last}.</source>
        <translation>Sur le graphique de {first} à {last}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Put on the chart</source>
        <translation>Placer sur le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Range</source>
        <translation>Plage</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples was stopped. Choose fewer curves or a shorter range.</source>
        <translation>La lecture des échantillons a été arrêtée. Choisissez moins de courbes ou une plage plus courte.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples…</source>
        <translation>Lecture des échantillons…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name} was stopped. Choose another file.</source>
        <translation>La lecture de {name} a été arrêtée. Choisissez un autre fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name}…</source>
        <translation>Lecture de {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Recording {name}, {start}</source>
        <translation>Acquisition {name}, {start}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reference curves</source>
        <translation>Courbes de référence</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stay at its &amp;own times</source>
        <translation>Garder ses p&amp;ropres heures</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Still needed: {what}.</source>
        <translation>Encore requis : {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stop reading</source>
        <translation>Arrêter la lecture</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>That is the most of one curve: choose a later start for what follows.</source>
        <translation>C&apos;est le maximum pour une courbe : choisissez un début plus tardif pour la suite.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>The file is being read</source>
        <translation>Le fichier est en cours de lecture</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no file {path}. Choose another one.</source>
        <translation>Il n&apos;y a pas de fichier {path}. Choisissez-en un autre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no sample in this range. Choose another one.</source>
        <translation>Il n&apos;y a aucun échantillon dans cette plage. Choisissez-en une autre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Times that name no zone are</source>
        <translation>Les heures sans fuseau sont</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>To</source>
        <translation>À</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What was found in the file</source>
        <translation>Ce qui a été trouvé dans le fichier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What will be put on the chart</source>
        <translation>Ce qui sera placé sur le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Where it stands on the chart</source>
        <translation>Où elle se place sur le graphique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a device</source>
        <translation>un appareil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a file</source>
        <translation>un fichier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a number of seconds</source>
        <translation>un nombre de secondes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a range</source>
        <translation>une plage</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>an end that is later than the start</source>
        <translation>une fin postérieure au début</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>at least one curve</source>
        <translation>au moins une courbe</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>fewer curves: at most {most} at once</source>
        <translation>moins de courbes : au plus {most} à la fois</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in UTC</source>
        <translation>en UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in the zone of this computer</source>
        <translation>dans le fuseau de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>no gap</source>
        <translation>aucune lacune</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>one gap</source>
        <translation>une lacune</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{count} gaps</source>
        <translation>{count} lacunes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds no curve. Choose another file.</source>
        <translation>{name} ne contient aucune courbe. Choisissez un autre fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds one curve.</source>
        <translation>{name} contient une courbe.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of one device.</source>
        <translation>{name} contient {curves} courbes d&apos;un appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of {devices} devices.</source>
        <translation>{name} contient {curves} courbes de {devices} appareils.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration} from {first}, {gaps}.</source>
        <translation>
            <numerusform>{name} : {count} échantillon sur {duration} à partir de {first}, {gaps}.</numerusform>
            <numerusform>{name} : {count} échantillons sur {duration} à partir de {first}, {gaps}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration}, {gaps}.</source>
        <translation>
            <numerusform>{name} : {count} échantillon sur {duration}, {gaps}.</numerusform>
            <numerusform>{name} : {count} échantillons sur {duration}, {gaps}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Replaced</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>addresses</source>
        <translation>adresses</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>customers</source>
        <translation>clients</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>keys</source>
        <translation>clés</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>names</source>
        <translation>noms</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>places</source>
        <translation>lieux</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>serial numbers</source>
        <translation>numéros de série</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>tokens</source>
        <translation>jetons</translation>
    </message>
</context>
<context>
    <name>ReplacedPanel</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>&amp;Hide the originals</source>
        <translation>&amp;Masquer les originaux</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How much is replaced</source>
        <translation>Combien est remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Kind</source>
        <translation>Type</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>On this screen only, for example while others look on.</source>
        <translation>Sur cet écran seulement, par exemple quand d&apos;autres regardent.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Original</source>
        <translation>Original</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Pseudonym</source>
        <translation>Pseudonyme</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search</source>
        <translation>Rechercher</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search in what is replaced</source>
        <translation>Rechercher dans ce qui est remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Times</source>
        <translation>Fois</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What is replaced by what</source>
        <translation>Ce qui est remplacé, et par quoi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} different words, {times} times</source>
        <translation>{n} mots différents, {times} fois</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{shown} of {n} different words</source>
        <translation>{shown} mots différents sur {n}</translation>
    </message>
</context>
<context>
    <name>ReplayBar</name>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Begin again at the end of the recording.</source>
        <translation>Recommencer à la fin de la relecture.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Enter another time of the recording to go there; Esc leaves it as it is.</source>
        <translation>Saisissez une autre heure de la relecture pour y aller ; Échap la laisse telle quelle.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on</source>
        <translation>Reprendre</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next bytes that moved, then hold.</source>
        <translation>Aller aux prochains octets échangés, puis mettre en pause.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next end of a command or the next report, then hold.</source>
        <translation>Aller à la prochaine fin de commande ou au prochain rapport, puis mettre en pause.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Hold the recording, or go on.</source>
        <translation>Mettre la relecture en pause ou reprendre.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>How much faster than it was recorded.</source>
        <translation>De combien plus vite que l&apos;original.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Loop</source>
        <translation>Boucle</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next command</source>
        <translation>Commande suivante</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next frame</source>
        <translation>Trame suivante</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Nothing is sent to a meter while a log is replayed.</source>
        <translation>Rien n&apos;est envoyé à un compteur pendant la relecture d&apos;un journal.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Pause</source>
        <translation>Pause</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Play again</source>
        <translation>Rejouer</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Position in the recording</source>
        <translation>Position dans la relecture</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>REPLAY</source>
        <translation>RELECTURE</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Replay controls</source>
        <translation>Commandes de relecture</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Speed</source>
        <translation>Vitesse</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Time in the recording</source>
        <translation>Heure dans la relecture</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>as fast as possible</source>
        <translation>le plus vite possible</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>{n} times</source>
        <translation>{n} fois</translation>
    </message>
</context>
<context>
    <name>ReportSaver</name>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>HTML page</source>
        <translation>Page HTML</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>JSON</source>
        <translation>JSON</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>PDF, to print and sign</source>
        <translation>PDF, à imprimer et à signer</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>Save the report</source>
        <translation>Enregistrer le procès-verbal</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report was written to {file}.</source>
        <translation>Le procès-verbal a été écrit dans {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report {name} is being written.</source>
        <translation>Écriture du procès-verbal {name} en cours.</translation>
    </message>
</context>
<context>
    <name>ResultBox</name>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Result of the test</source>
        <translation>Résultat du test</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Stop the test</source>
        <translation>Arrêter le test</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>The test is under way</source>
        <translation>Le test est en cours</translation>
    </message>
</context>
<context>
    <name>ResultView</name>
    <message numerus="yes">
        <location filename="../../ui/panels/accuracy.py"/>
        <source>%n rows are on the clipboard.</source>
        <translation>
            <numerusform>%n ligne est dans le presse-papiers.</numerusform>
            <numerusform>%n lignes sont dans le presse-papiers.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A new test with the plan as it stands.</source>
        <translation>Un nouvel essai avec le plan actuel.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>All files (*)</source>
        <translation>Tous les fichiers (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Copy rows</source>
        <translation>Copier les lignes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Lines of the result</source>
        <translation>Lignes du résultat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure again</source>
        <translation>Mesurer à nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results that are kept</source>
        <translation>Résultats conservés</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as HTML…</source>
        <translation>Enregistrer en HTML…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as JSON…</source>
        <translation>Enregistrer en JSON…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save result</source>
        <translation>Enregistrer le résultat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Saved as {file}.</source>
        <translation>Enregistré sous {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen rows, or all (Ctrl+C).</source>
        <translation>Les lignes choisies, ou toutes (Ctrl+C).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} n&apos;a pas pu être écrit : {reason}. Choisissez un autre dossier.</translation>
    </message>
</context>
<context>
    <name>Routes</name>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Can also be reached: {ways}</source>
        <translation>Peut aussi être joint par : {ways}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Reached: {way}</source>
        <translation>Joint par : {way}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>directly</source>
        <translation>directement</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>through {gateway}</source>
        <translation>par {gateway}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>{way} ({adapter})</source>
        <translation>{way} ({adapter})</translation>
    </message>
</context>
<context>
    <name>Rule</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>after an outage</source>
        <translation>après une coupure</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>all gateways down</source>
        <translation>toutes les passerelles hors ligne</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>behind suspended</source>
        <translation>derrière un suspendu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>capability</source>
        <translation>capacité</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>device busy</source>
        <translation>appareil occupé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>disconnected</source>
        <translation>coupé</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>expired</source>
        <translation>expiré</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>forbidden</source>
        <translation>interdit</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>foreign write</source>
        <translation>écriture d&apos;autrui</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gateway down</source>
        <translation>passerelle hors ligne</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>grid down</source>
        <translation>réseau électrique hors tension</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>link down</source>
        <translation>liaison coupée</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen</source>
        <translation>jamais vu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen, commissioning</source>
        <translation>jamais vu, mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not seen recently</source>
        <translation>pas vu récemment</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>planned</source>
        <translation>prévu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>recovery grace</source>
        <translation>délai de rétablissement</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry of a commissioning</source>
        <translation>nouvelle tentative de mise en service</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unreachable</source>
        <translation>injoignable</translation>
    </message>
</context>
<context>
    <name>RunPage</name>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>A command that has left goes on and may still take effect. What was found stays kept.</source>
        <translation>Une commande partie se poursuit et peut encore prendre effet. Ce qui a été constaté reste conservé.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Answer: {answer}</source>
        <translation>Réponse : {answer}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Ask again</source>
        <translation>Redemander</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>By {who}.</source>
        <translation>Par {who}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Checks of the step</source>
        <translation>Contrôles de l&apos;étape</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Commission {name} again</source>
        <translation>Remettre {name} en service</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Do all steps of the commissioning of {name} again?</source>
        <translation>Refaire toutes les étapes de la mise en service de {name} ?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Flows and earlier runs</source>
        <translation>Procédures et exécutions antérieures</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Found</source>
        <translation>Constaté</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it again…</source>
        <translation>La redonner…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it now…</source>
        <translation>La donner maintenant…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with a warning</source>
        <translation>Continuer avec avertissement</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with the flow</source>
        <translation>Reprendre la procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interaction: {listed}</source>
        <translation>Interaction : {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interactions: {listed}</source>
        <translation>Interactions : {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>It can be left out, with a reason:</source>
        <translation>Elle peut être omise, avec un motif :</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Let it go on</source>
        <translation>La laisser continuer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>No.</source>
        <translation>Num.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Note: {note}</source>
        <translation>Note : {note}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Or say why it need not pass:</source>
        <translation>Ou indiquez pourquoi elle n&apos;a pas à réussir :</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Pause the flow</source>
        <translation>Mettre en pause</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read again</source>
        <translation>Relire</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read it back: {command}</source>
        <translation>Relire la valeur : {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason</source>
        <translation>Motif</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason, for the report</source>
        <translation>Motif, pour le procès-verbal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Run again…</source>
        <translation>Exécuter à nouveau…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Save report…</source>
        <translation>Enregistrer le procès-verbal…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Skip this step</source>
        <translation>Omettre cette étape</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Step</source>
        <translation>Étape</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Steps of the flow</source>
        <translation>Étapes de la procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow</source>
        <translation>Arrêter la procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow on {name}</source>
        <translation>Arrêter la procédure sur {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow…</source>
        <translation>Arrêter la procédure…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop {flow} on {name} before its end?</source>
        <translation>Arrêter {flow} sur {name} avant la fin ?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Tamper state, credit and power limit of the meter are overwritten once more.</source>
        <translation>L&apos;état de fraude, le crédit et la limite de puissance du compteur sont écrasés une fois de plus.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Verdict</source>
        <translation>Verdict</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Wanted</source>
        <translation>Attendu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>What</source>
        <translation>Élément</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>began {time}, by {who}</source>
        <translation>commencé {time}, par {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>{flow} on {name}</source>
        <translation>{flow} sur {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>{number}. {title}: {state}</source>
        <translation>{number}. {title} : {state}</translation>
    </message>
</context>
<context>
    <name>RunView</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>All load points are measured.</source>
        <translation>Tous les points de charge sont mesurés.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off this load point</source>
        <translation>Interrompre ce point de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off…</source>
        <translation>Interrompre…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>End the test here</source>
        <translation>Terminer l&apos;essai ici</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Go on measuring</source>
        <translation>Continuer à mesurer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Last values of the two meters</source>
        <translation>Dernières valeurs des deux compteurs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load point {number} of {count}: {name}</source>
        <translation>Point de charge {number} sur {count} : {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points of this test</source>
        <translation>Points de charge de cet essai</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure this load point again</source>
        <translation>Mesurer à nouveau ce point de charge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measuring. Leave the load as it is.</source>
        <translation>Mesure en cours. Ne touchez pas à la charge.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Progress of the repeat</source>
        <translation>Avancement de la répétition</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Reason for breaking off</source>
        <translation>Motif de l&apos;interruption</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {energy} of {target} Wh, {seconds}</source>
        <translation>Répétition {repeat} sur {repeats} : {energy} de {target} Wh, {seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {seconds} of {target} s, {energy}</source>
        <translation>Répétition {repeat} sur {repeats} : {seconds} de {target} s, {energy}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error</source>
        <translation>Erreur courante</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load to {name}, {power} W, and wait until it is steady. Then start measuring.</source>
        <translation>Réglez la charge sur {name}, {power} W, et attendez qu&apos;elle soit stable. Démarrez ensuite la mesure.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load is set: measure</source>
        <translation>La charge est réglée : mesurer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load points measured so far become the result.</source>
        <translation>Les points de charge mesurés jusqu&apos;ici forment le résultat.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load settles for {waits} s, then the next value of both meters starts the measurement.</source>
        <translation>La charge se stabilise pendant {waits} s, puis la prochaine valeur des deux compteurs démarre la mesure.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This load point was broken off: {reason}. Set the load again and measure it again.</source>
        <translation>Ce point de charge a été interrompu : {reason}. Réglez la charge à nouveau et mesurez-le à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Waiting for the next value of both meters.</source>
        <translation>Attente de la prochaine valeur des deux compteurs.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Why is it broken off?</source>
        <translation>Pourquoi interrompre ?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>broken off by the person, no reason given</source>
        <translation>interrompu par la personne, sans motif</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>limit ±{limit} %</source>
        <translation>limite ±{limit} %</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no error yet   {limit}</source>
        <translation>pas encore d&apos;erreur   {limit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no limit</source>
        <translation>aucune limite</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: no value yet</source>
        <translation>{role} : pas encore de valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: {value} ({age} s ago)</source>
        <translation>{role} : {value} (il y a {age} s)</translation>
    </message>
</context>
<context>
    <name>SamplesModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time</source>
        <translation>Heure</translation>
    </message>
</context>
<context>
    <name>SamplesView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>No samples here: show an earlier time, or connect the device.</source>
        <translation>Aucun échantillon ici : affichez une heure antérieure, ou connectez l&apos;appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>The newest {0:,} rows; narrow the range for earlier ones, or export it.</source>
        <translation>Les {0:,} lignes les plus récentes ; resserrez la plage pour voir les précédentes, ou exportez-la.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0:,} rows.</source>
        <translation>{0:,} lignes.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0} newer rows. Show them</source>
        <translation>{0} lignes plus récentes. Les afficher</translation>
    </message>
</context>
<context>
    <name>SavedFilterBar</name>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Filters with a name</source>
        <translation>Filtres nommés</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Leave</source>
        <translation>Quitter</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Name of this filter</source>
        <translation>Nom de ce filtre</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>New name of {name}</source>
        <translation>Nouveau nom de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>No filter saved yet</source>
        <translation>Aucun filtre enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Nothing is filtered now.</source>
        <translation>Rien n&apos;est filtré actuellement.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Remove</source>
        <translation>Retirer</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename</source>
        <translation>Renommer</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename the filter</source>
        <translation>Renommer le filtre</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Replace {name}</source>
        <translation>Remplacer {name}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter</source>
        <translation>Enregistrer le filtre</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter in force…</source>
        <translation>Enregistrer le filtre actif…</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Saved</source>
        <translation>Enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filter is saved as {name}.</source>
        <translation>Le filtre est enregistré sous {name}.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filters could not be saved. {why}</source>
        <translation>Les filtres n&apos;ont pas pu être enregistrés. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Undo</source>
        <translation>Annuler</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{count} filters are saved. Remove one first.</source>
        <translation>{count} filtres sont enregistrés. Retirez-en d&apos;abord un.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{name} is removed.</source>
        <translation>{name} est retiré.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{old} is now called {name}.</source>
        <translation>{old} s&apos;appelle désormais {name}.</translation>
    </message>
</context>
<context>
    <name>SavingPage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save the device</source>
        <translation>&amp;Enregistrer l&apos;appareil</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {name}</source>
        <translation>&amp;Enregistrer {name}</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {n} devices</source>
        <translation>&amp;Enregistrer {n} appareils</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;What will be saved</source>
        <translation>Ce &amp;qui sera enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>As on its name plate. Its flow checks that this meter is the one that answers.</source>
        <translation>Comme sur sa plaque signalétique. Sa procédure vérifie que c&apos;est bien ce compteur qui répond.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>It is being saved...</source>
        <translation>Enregistrement en cours...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Its name and its place</source>
        <translation>Son nom et son emplacement</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Encore requis : {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>There was no good test of this connection. It can be saved all the same.</source>
        <translation>Aucun test de cette connexion n&apos;a réussi. Elle peut quand même être enregistrée.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Tick what is to be saved.</source>
        <translation>Cochez ce qui doit être enregistré.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>What will be saved</source>
        <translation>Ce qui sera enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name}  (in the tree already)</source>
        <translation>{name}  (déjà dans l&apos;arborescence)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name} has the serial number {serial} too: it seems to be the same device.</source>
        <translation>{name} a aussi le numéro de série {serial} : il semble s&apos;agir du même appareil.</translation>
    </message>
</context>
<context>
    <name>SearchPage</name>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Stop the search</source>
        <translation>&amp;Arrêter la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test it</source>
        <translation>&amp;Tester</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test {name}</source>
        <translation>&amp;Tester {name}</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that came</source>
        <translation>Octets reçus</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that were sent</source>
        <translation>Octets envoyés</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Choose a try to see its bytes.</source>
        <translation>Choisissez une tentative pour voir ses octets.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Compare the fingerprint of the certificate first.</source>
        <translation>Comparez d&apos;abord l&apos;empreinte du certificat.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Fingerprint of the certificate (SHA-256)</source>
        <translation>Empreinte du certificat (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>How far the search is</source>
        <translation>Avancement de la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>I &amp;compared the fingerprint with the meter&apos;s papers, and it is the same</source>
        <translation>J&apos;ai &amp;comparé l&apos;empreinte aux documents du compteur, et elle est identique</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Looking: {tries} of at most {count} tries, {passed} of at most {most}.</source>
        <translation>Recherche : {tries} tentatives sur au plus {count}, {passed} sur au plus {most}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing came back.</source>
        <translation>Rien n&apos;est revenu.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found yet.</source>
        <translation>Rien n&apos;a encore été trouvé.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found.</source>
        <translation>Rien n&apos;a été trouvé.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was sent.</source>
        <translation>Rien n&apos;a été envoyé.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Outcome</source>
        <translation>Issue</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Progress of the search</source>
        <translation>Progression de la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Received</source>
        <translation>Reçu</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Search &amp;again</source>
        <translation>&amp;Relancer la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Sent</source>
        <translation>Envoyé</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search begins...</source>
        <translation>La recherche commence...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search is being stopped...</source>
        <translation>La recherche est en cours d&apos;arrêt...</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/wizard/search.py"/>
        <source>The search was stopped after {n} tries.</source>
        <translation>
            <numerusform>La recherche a été arrêtée après {n} tentative.</numerusform>
            <numerusform>La recherche a été arrêtée après {n} tentatives.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Tried</source>
        <translation>Essayé</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for it to dial in</source>
        <translation>Attente de son appel</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for the device: {passed} of at most {most}.</source>
        <translation>Attente de l&apos;appareil : {passed} sur au plus {most}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What</source>
        <translation>Quoi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What answers</source>
        <translation>Ce qui répond</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What came of it</source>
        <translation>Ce qui en est résulté</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was found</source>
        <translation>Ce qui a été trouvé</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was tried</source>
        <translation>Ce qui a été essayé</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Where</source>
        <translation>Où</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>answered</source>
        <translation>a répondu</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>silent</source>
        <translation>muet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>{what}  ({how})</source>
        <translation>{what}  ({how})</translation>
    </message>
</context>
<context>
    <name>SettingsDialog</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>A workspace keeps every interaction, byte and sample until its file is deleted.</source>
        <translation>Un espace de travail conserve chaque interaction, octet et échantillon jusqu&apos;à la suppression de son fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Armed for</source>
        <translation>Armé pendant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>As it is</source>
        <translation>Pour information</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Colours</source>
        <translation>Couleurs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts from the next start.</source>
        <translation>Prend effet au prochain démarrage.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts when a workspace is opened next. Files have UTC always.</source>
        <translation>Prend effet à la prochaine ouverture d&apos;un espace de travail. Les fichiers sont toujours en UTC.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Devices dial in at</source>
        <translation>Les appareils appellent à</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Folder for exports</source>
        <translation>Dossier des exports</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>For a screen whose size the system gets wrong. Counts from the next start.</source>
        <translation>Pour un écran dont le système connaît mal la taille. Prend effet au prochain démarrage.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Keyring</source>
        <translation>Trousseau de clés</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language</source>
        <translation>Langue</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language and size count from the next start of Meterwright.</source>
        <translation>La langue et la taille prennent effet au prochain démarrage de Meterwright.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Leave as it was</source>
        <translation>Laisser comme avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Passwords and keys</source>
        <translation>Mots de passe et clés</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Save the settings</source>
        <translation>Enregistrer les préférences</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings</source>
        <translation>Préférences</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Préférences : {config}
Espaces de travail : {data}
Journal du programme et rapports d&apos;incident : {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Size of everything</source>
        <translation>Taille de l&apos;ensemble</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>So long may be written to meters once that is armed; then the window only reads.</source>
        <translation>Durée pendant laquelle on peut écrire dans les compteurs une fois l&apos;écriture armée ; ensuite la fenêtre ne fait que lire.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a folder that is there, or none.</source>
        <translation>Encore requis : un dossier existant, ou aucun.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a number of minutes.</source>
        <translation>Encore requis : un nombre de minutes.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: an address of this computer.</source>
        <translation>Encore requis : une adresse de cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The keyring of this computer is being asked…</source>
        <translation>Interrogation du trousseau de clés de cet ordinateur…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The program&apos;s own log takes {size} at most; the oldest lines go.</source>
        <translation>Le journal du programme occupe au plus {size} ; les lignes les plus anciennes disparaissent.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Times on screen</source>
        <translation>Heures à l&apos;écran</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>UTC</source>
        <translation>UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>What is kept</source>
        <translation>Ce qui est conservé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Window</source>
        <translation>Fenêtre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Work</source>
        <translation>Travail</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has it</source>
        <translation>comme le système</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has them</source>
        <translation>comme le système</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>dark</source>
        <translation>sombre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>light</source>
        <translation>clair</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>local time of this computer</source>
        <translation>heure locale de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{name} takes {size} now.</source>
        <translation>{name} occupe {size} actuellement.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{n} %</source>
        <translation>{n} %</translation>
    </message>
</context>
<context>
    <name>Severity</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>défaut</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>note</source>
        <translation>note</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>warning</source>
        <translation>avertissement</translation>
    </message>
</context>
<context>
    <name>Share</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>File</source>
        <translation>Fichier</translation>
    </message>
</context>
<context>
    <name>ShareDialog</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A &amp;part of the log</source>
        <translation>Une &amp;partie du journal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A support &amp;bundle</source>
        <translation>Un dossier de &amp;support</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>All {n} interactions.</source>
        <translation>Toutes les {n} interactions.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Correct the filter, then what is replaced by what stands here.</source>
        <translation>Corrigez le filtre ; ce qui est remplacé, et par quoi, s&apos;affichera ici.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Counting…</source>
        <translation>Comptage…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Everything; or, for example,  status:failed device:lem-1</source>
        <translation>Tout ; ou, par exemple,  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;ilter</source>
        <translation>F&amp;iltre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;orm</source>
        <translation>F&amp;ormat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Form</source>
        <translation>Format</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>From</source>
        <translation>De</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How many interactions</source>
        <translation>Combien d&apos;interactions</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>It was stopped. Nothing was written.</source>
        <translation>Arrêté. Rien n&apos;a été écrit.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;again</source>
        <translation>Rechercher à &amp;nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;now</source>
        <translation>Rechercher &amp;maintenant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced…</source>
        <translation>Recherche de ce qui est à remplacer…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced… {percent} %</source>
        <translation>Recherche de ce qui est à remplacer… {percent} %</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>None of {all} interactions matches.</source>
        <translation>Aucune des {all} interactions ne correspond.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing was replaced.</source>
        <translation>Rien n&apos;a été remplacé.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing would be replaced.</source>
        <translation>Rien ne serait remplacé.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>One ZIP file that says how this installation stands: versions, the doctor&apos;s findings, settings, devices and the program&apos;s log, all without secrets.</source>
        <translation>Un fichier ZIP qui décrit l&apos;état de cette installation : versions, constats du diagnostic, préférences, appareils et journal du programme, le tout sans secrets.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Onl&amp;y those of a time</source>
        <translation>Seulement ceux d&apos;une p&amp;ériode</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Passwords and other secrets are hidden in any case.</source>
        <translation>Mots de passe et autres secrets sont masqués dans tous les cas.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. Nothing is written for that.</source>
        <translation>Appuyez sur « Rechercher maintenant » pour voir ce qui est remplacé, et par quoi. Rien n&apos;est écrit pour cela.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. The doctor takes some seconds.</source>
        <translation>Appuyez sur « Rechercher maintenant » pour voir ce qui est remplacé, et par quoi. Le diagnostic prend quelques secondes.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced by pseudonyms, the same ones everywhere</source>
        <translation>Remplacés par des pseudonymes, les mêmes partout</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced in it: {kinds}.</source>
        <translation>Remplacé dans ce fichier : {kinds}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share a part of the log</source>
        <translation>Partager une partie du journal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share: support bundle</source>
        <translation>Partager : dossier de support</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Show in &amp;folder</source>
        <translation>Afficher dans le &amp;dossier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a file.</source>
        <translation>Encore requis : un fichier.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that can be read.</source>
        <translation>Encore requis : un filtre lisible.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that something matches.</source>
        <translation>Encore requis : un filtre auquel quelque chose correspond.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: an end of the samples that is behind their beginning.</source>
        <translation>Encore nécessaire : une fin des échantillons postérieure à leur début.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop loo&amp;king</source>
        <translation>Arrêter la reche&amp;rche</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop writing</source>
        <translation>Arrêter l&apos;écriture</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stopping…</source>
        <translation>Arrêt en cours…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Support bundle (*.zip)</source>
        <translation>Dossier de support (*.zip)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The file is being written</source>
        <translation>Le fichier est en cours d&apos;écriture</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This computer has nothing to show a folder with. The file is {file}.</source>
        <translation>Cet ordinateur n&apos;a rien pour afficher un dossier. Le fichier est {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This form holds no samples.</source>
        <translation>Ce format ne contient pas d&apos;échantillons.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>To before</source>
        <translation>Jusqu&apos;avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What became of it</source>
        <translation>Ce qui en est résulté</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What happened, and what did you expect?</source>
        <translation>Que s&apos;est-il passé, et qu&apos;attendiez-vous ?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What was replaced</source>
        <translation>Ce qui a été remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What would be replaced</source>
        <translation>Ce qui serait remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With a part of the &amp;log</source>
        <translation>Avec une partie du &amp;journal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With the &amp;samples of the devices</source>
        <translation>Avec les éc&amp;hantillons des appareils</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the bundle</source>
        <translation>Écrire le dossier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the file</source>
        <translation>Écrire le fichier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Writing {name}…</source>
        <translation>Écriture de {name}…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{file} holds {names}. Look through it before you send it.</source>
        <translation>{file} contient {names}. Relisez-le avant de l&apos;envoyer.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name}, a part</source>
        <translation>{name}, une partie</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} attachments were left out: what stands in a picture cannot be replaced.</source>
        <translation>
            <numerusform>{n} pièce jointe a été omise : ce qui figure dans une image ne peut pas être remplacé.</numerusform>
            <numerusform>{n} pièces jointes ont été omises : ce qui figure dans une image ne peut pas être remplacé.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} frames were written to {file}.</source>
        <translation>
            <numerusform>{n} trame a été écrite dans {file}.</numerusform>
            <numerusform>{n} trames ont été écrites dans {file}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} interactions were written to {file}.</source>
        <translation>
            <numerusform>{n} interaction a été écrite dans {file}.</numerusform>
            <numerusform>{n} interactions ont été écrites dans {file}.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} of {all} interactions.</source>
        <translation>{n} interactions sur {all}.</translation>
    </message>
</context>
<context>
    <name>Shortcuts</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Begin again at the end, or not</source>
        <translation>Recommencer à la fin, ou non</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Choose everything</source>
        <translation>Tout sélectionner</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy the chosen rows, in the tables beside it</source>
        <translation>Copier les lignes choisies, dans les tableaux à côté</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy what is chosen</source>
        <translation>Copier ce qui est choisi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Empty the search or filter line, or leave it</source>
        <translation>Vider la ligne de recherche ou de filtre, ou la quitter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Everywhere</source>
        <translation>Partout</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Follow what comes</source>
        <translation>Suivre ce qui arrive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>From a search or filter line into the list below</source>
        <translation>D&apos;une ligne de recherche ou de filtre à la liste en dessous</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the picture, or go on</source>
        <translation>Figer l&apos;image ou reprendre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the recording, or go on</source>
        <translation>Mettre la relecture en pause ou reprendre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In bytes</source>
        <translation>Dans les octets</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the fourteen steps</source>
        <translation>Dans les quatorze étapes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the log and in lists</source>
        <translation>Dans le journal et les listes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Leave a dialog, the palette or a menu</source>
        <translation>Quitter un dialogue, la palette ou un menu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor A</source>
        <translation>Déplacer le curseur A</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor B</source>
        <translation>Déplacer le curseur B</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move in time</source>
        <translation>Se déplacer dans le temps</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Note on this moment</source>
        <translation>Note à cet instant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>On a chart</source>
        <translation>Sur un graphique</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Open what is chosen</source>
        <translation>Ouvrir ce qui est choisi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Put cursor A or B in the middle</source>
        <translation>Placer le curseur A ou B au milieu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show everything</source>
        <translation>Tout afficher</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show less time, or more</source>
        <translation>Montrer moins de temps, ou plus</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show what belongs to the step</source>
        <translation>Afficher ce qui se rapporte à l&apos;étape</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Take the chosen curve away, in the list of curves</source>
        <translation>Retirer la courbe choisie, dans la liste des courbes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the ends of the line; with Ctrl of all</source>
        <translation>Aux extrémités de la ligne ; avec Ctrl, de l&apos;ensemble</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the first step, or the last</source>
        <translation>À la première étape, ou à la dernière</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next byte; with Shift choose them</source>
        <translation>À l&apos;octet suivant ; avec Maj, les sélectionner</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next bytes that moved</source>
        <translation>Aux prochains octets échangés</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next command</source>
        <translation>À la commande suivante</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next field, or the one before</source>
        <translation>Au champ suivant, ou au précédent</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next step in that direction</source>
        <translation>À l&apos;étape suivante dans ce sens</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What a right click offers</source>
        <translation>Ce que propose un clic droit</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What may stand here, in the filter line</source>
        <translation>Ce qui peut figurer ici, dans la ligne de filtre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>While a log is replayed</source>
        <translation>Pendant la relecture d&apos;un journal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>With an underlined letter: to that menu, button or field</source>
        <translation>Avec une lettre soulignée : à ce menu, ce bouton ou ce champ</translation>
    </message>
</context>
<context>
    <name>ShortcutsDialog</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>A key or what it does</source>
        <translation>Une touche ou son effet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Close</source>
        <translation>Fermer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Ctrl+Shift+P finds every action by typing, also those without a key.</source>
        <translation>Ctrl+Maj+P trouve toute action en tapant, même celles sans touche.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keyboard shortcuts</source>
        <translation>Raccourcis clavier</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keys</source>
        <translation>Touches</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Look for a key or what it does</source>
        <translation>Chercher une touche ou son effet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Rien ne correspond. Essayez avec moins de lettres.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What it does</source>
        <translation>Effet</translation>
    </message>
</context>
<context>
    <name>StartPage</name>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Began</source>
        <translation>Début</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Customer</source>
        <translation>Client</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Earlier runs</source>
        <translation>Exécutions antérieures</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Engineer</source>
        <translation>Technicien</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flow</source>
        <translation>Procédure</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows</source>
        <translation>Procédures</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows for {name}</source>
        <translation>Procédures pour {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>For the report (kept with this workspace)</source>
        <translation>Pour le procès-verbal (conservé avec cet espace de travail)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Instrument</source>
        <translation>Instrument</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It changes the device: {writes}. You are asked before it begins.</source>
        <translation>Elle modifie l&apos;appareil : {writes}. Une confirmation vous est demandée avant le début.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It only reads: nothing on the device is changed.</source>
        <translation>Elle ne fait que lire : rien n&apos;est modifié sur l&apos;appareil.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>No flow is made for {system}. Put a flow file (TOML) with this system among its adapters into the folder “flows” of your profile, and read the files again.</source>
        <translation>Aucune procédure n&apos;est faite pour {system}. Placez un fichier de procédure (TOML) citant ce système parmi ses adaptateurs dans le dossier « flows » de votre profil, puis relisez les fichiers.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Read files again</source>
        <translation>Relire les fichiers</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Site</source>
        <translation>Site</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Start flow on {name}</source>
        <translation>Démarrer la procédure sur {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>State</source>
        <translation>État</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (asks you)</source>
        <translation>{line}  (vous interroge)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (changes the device)</source>
        <translation>{line}  (modifie l&apos;appareil)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (left out with these inputs)</source>
        <translation>{line}  (omise avec ces données)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{name} does not offer {commands}: those steps cannot pass here.</source>
        <translation>{name} ne propose pas {commands} : ces étapes ne peuvent pas réussir ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{title}, version {version}</source>
        <translation>{title}, version {version}</translation>
    </message>
</context>
<context>
    <name>StateBand</name>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>States</source>
        <translation>États</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>and {n} more: hide the curves of other devices in the list below</source>
        <translation>et {n} de plus : masquez les courbes d&apos;autres appareils dans la liste ci-dessous</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not connected; last known {what}, {time}</source>
        <translation>non connecté ; dernier état connu {what}, {time}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known before {time}</source>
        <translation>inconnu avant {time}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known yet</source>
        <translation>pas encore connu</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Not known before {time}: states are kept while the device is on the chart.</source>
        <translation>{name}
Inconnu avant {time} : les états sont conservés tant que l&apos;appareil est sur le graphique.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Nothing was heard at this time.</source>
        <translation>{name}
Rien n&apos;a été entendu à cet instant.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}: {state}</source>
        <translation>{name} : {state}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{what}
{start} to {end}, {length} s</source>
        <translation>{what}
{start} à {end}, {length} s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{what} since {time}</source>
        <translation>{what} depuis {time}</translation>
    </message>
</context>
<context>
    <name>States</name>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>error flags {flags}</source>
        <translation>indicateurs d&apos;erreur {flags}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>mode {mode}</source>
        <translation>mode {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>{text} and {n} more</source>
        <translation>{text} et {n} de plus</translation>
    </message>
</context>
<context>
    <name>StatisticsModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Change</source>
        <translation>Variation</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Device</source>
        <translation>Appareil</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Energy, charge</source>
        <translation>Énergie, charge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>First</source>
        <translation>Premier</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Last</source>
        <translation>Dernier</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Max</source>
        <translation>Max</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Mean</source>
        <translation>Moyenne</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Quantity</source>
        <translation>Grandeur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>RMS</source>
        <translation>Efficace</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Échantillons</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples/s</source>
        <translation>Échant./s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per h</source>
        <translation>Pente par h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per s</source>
        <translation>Pente par s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Std dev</source>
        <translation>Écart type</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time covered</source>
        <translation>Durée couverte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Unit</source>
        <translation>Unité</translation>
    </message>
</context>
<context>
    <name>StatisticsView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Gaps are left out of energy and time covered.</source>
        <translation>Les lacunes ne comptent ni dans l&apos;énergie ni dans la durée couverte.</translation>
    </message>
</context>
<context>
    <name>Status</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>terminé</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>échec</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>given up</source>
        <translation>abandonné</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>new</source>
        <translation>nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>on its way</source>
        <translation>en cours d&apos;envoi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>paused (suspended)</source>
        <translation>en pause (suspendu)</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>queued</source>
        <translation>en file</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replaced</source>
        <translation>remplacé</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>inconnu</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits (deferred)</source>
        <translation>en attente (différé)</translation>
    </message>
</context>
<context>
    <name>StatusBar</name>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>, stopped</source>
        <translation>, arrêté</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/status_bar.py"/>
        <source>, {n} failed</source>
        <translation>
            <numerusform>, {n} en échec</numerusform>
            <numerusform>, {n} en échec</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch under way</source>
        <translation>Lot en cours</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch {done} of {total}</source>
        <translation>Lot {done} sur {total}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Commands under way</source>
        <translation>Commandes en cours</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links</source>
        <translation>Liaisons</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links with traffic; a filled mark means bytes in the last second.</source>
        <translation>Liaisons avec trafic ; une marque pleine signale des octets dans la dernière seconde.</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Log size</source>
        <translation>Taille du journal</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Messages a second</source>
        <translation>Messages par seconde</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Mode</source>
        <translation>Mode</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>REPLAY</source>
        <translation>RELECTURE</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Team database</source>
        <translation>Base d&apos;équipe</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>live</source>
        <translation>direct</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {count}, {size}</source>
        <translation>journal {count}, {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {size}</source>
        <translation>journal {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>nothing waits</source>
        <translation>rien n&apos;attend</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>read only</source>
        <translation>lecture seule</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>team: {word}</source>
        <translation>équipe : {word}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{device} {out}TX {into}RX</source>
        <translation>{device} {out}TX {into}RX</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{n} of {total} links busy</source>
        <translation>{n} liaisons actives sur {total}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{rate} msg/s</source>
        <translation>{rate} msg/s</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{rate}, {time}</source>
        <translation>{rate}, {time}</translation>
    </message>
</context>
<context>
    <name>StepStrip</name>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>App</source>
        <translation>Appli</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Device messaging</source>
        <translation>Messagerie des appareils</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Hardware</source>
        <translation>Matériel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>IN</source>
        <translation>ENTRÉE</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>OUT</source>
        <translation>SORTIE</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>The fourteen steps</source>
        <translation>Les quatorze étapes</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>answer</source>
        <translation>réponse</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>click</source>
        <translation>clic</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>decode</source>
        <translation>décodage</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>done</source>
        <translation>terminé</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>effects</source>
        <translation>effets</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>encode</source>
        <translation>codage</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>gatekeeper</source>
        <translation>contrôle</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>matched</source>
        <translation>associé</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>meter</source>
        <translation>compteur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>network</source>
        <translation>réseau</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>not reached</source>
        <translation>non atteint</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>queue</source>
        <translation>file</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>request</source>
        <translation>requête</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>saved</source>
        <translation>enregistré</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>seen</source>
        <translation>vu</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>to come</source>
        <translation>à venir</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>{seconds} s after the click</source>
        <translation>{seconds} s après le clic</translation>
    </message>
</context>
<context>
    <name>System</name>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Battery</source>
        <translation>Batterie</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>DC side {value}</source>
        <translation>Côté CC {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Grid</source>
        <translation>Réseau</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Inverter</source>
        <translation>Onduleur</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Load</source>
        <translation>Consommation</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>charging</source>
        <translation>charge</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed</source>
        <translation>consommé</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed {value}</source>
        <translation>consommé {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>demand {value}</source>
        <translation>appel {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>discharging</source>
        <translation>décharge</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>drawing</source>
        <translation>absorbe</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>efficiency {value}</source>
        <translation>rendement {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>export</source>
        <translation>injection</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding back</source>
        <translation>réinjecte</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding in</source>
        <translation>fournit</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>generated {value}</source>
        <translation>produit {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>import</source>
        <translation>soutirage</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>no flow</source>
        <translation>aucun flux</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>not reported</source>
        <translation>non communiqué</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>peak demand {value}</source>
        <translation>appel maximal {value}</translation>
    </message>
</context>
<context>
    <name>SystemPanel</name>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Choose a battery system in the tree on the left: {names}.</source>
        <translation>Choisissez un système à batterie dans l&apos;arborescence à gauche : {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Connect it first.</source>
        <translation>Connectez-le d&apos;abord.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>It is connected: its next packet is shown here.</source>
        <translation>Il est connecté : son prochain paquet s&apos;affiche ici.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>No device of this workspace tells battery and grid power.</source>
        <translation>Aucun appareil de cet espace de travail ne donne les puissances de la batterie et du réseau.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Picture of the system</source>
        <translation>Image du système</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>System</source>
        <translation>Système</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} has sent no telemetry since this workspace was opened.
{why}</source>
        <translation>{name} n&apos;a envoyé aucune télémesure depuis l&apos;ouverture de cet espace de travail.
{why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} tells no battery and grid power.
Choose a battery system in the tree: {names}.</source>
        <translation>{name} ne donne pas les puissances de la batterie et du réseau.
Choisissez un système à batterie dans l&apos;arborescence : {names}.</translation>
    </message>
</context>
<context>
    <name>SystemPicture</name>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Flows of power</source>
        <translation>Flux de puissance</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Last packet {age} s ago: these are old values.</source>
        <translation>Dernier paquet il y a {age} s : ce sont d&apos;anciennes valeurs.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>The widest arrow is {power}.</source>
        <translation>La flèche la plus large est {power}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>charge {charge}</source>
        <translation>charge {charge}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>mode {mode}</source>
        <translation>mode {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>{part}, charge {charge}</source>
        <translation>{part}, charge {charge}</translation>
    </message>
</context>
<context>
    <name>TargetField</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The name must end with {suffix}.</source>
        <translation>Le nom doit se terminer par {suffix}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>There is no folder {folder}. Choose another one.</source>
        <translation>Il n&apos;y a pas de dossier {folder}. Choisissez-en un autre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name} exists already. Choose another name.</source>
        <translation>{name} existe déjà. Choisissez un autre nom.</translation>
    </message>
</context>
<context>
    <name>Team</name>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Connecting to the team database.</source>
        <translation>Connexion à la base d&apos;équipe.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is switched off; nothing leaves this computer.</source>
        <translation>Elle est désactivée ; rien ne quitte cet ordinateur.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again at {time}. What comes meanwhile is kept and sent then.</source>
        <translation>Nouvelle tentative à {time}. Ce qui arrive entre-temps est gardé et envoyé alors.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again when its settings are saved or the workspace is opened.</source>
        <translation>Nouvelle tentative à l&apos;enregistrement de ses réglages ou à l&apos;ouverture de l&apos;espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Last time everything was there: {time}.</source>
        <translation>Dernière fois que tout y était : {time}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Rows that are not in the team database yet: {count}.</source>
        <translation>Lignes pas encore dans la base d&apos;équipe : {count}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Sent so far: samples {samples}, interactions {interactions}.</source>
        <translation>Envoyé jusqu&apos;ici : échantillons {samples}, interactions {interactions}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>The team database has everything.</source>
        <translation>La base d&apos;équipe a tout.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>What is new is being sent to the team database.</source>
        <translation>Les nouveautés sont en cours d&apos;envoi à la base d&apos;équipe.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>connecting</source>
        <translation>connexion</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>held up</source>
        <translation>retardé</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>not reachable</source>
        <translation>injoignable</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>off</source>
        <translation>désactivé</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>sending</source>
        <translation>envoi</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>stopped</source>
        <translation>arrêté</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>up to date</source>
        <translation>à jour</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/team_state.py"/>
        <source>{count} waiting</source>
        <translation>
            <numerusform>{count} en attente</numerusform>
            <numerusform>{count} en attente</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>TeamDialog</name>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Push this workspace to the team database</source>
        <translation>&amp;Copier cet espace de travail dans la base d&apos;équipe</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Test the connection</source>
        <translation>&amp;Tester la connexion</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Address</source>
        <translation>Adresse</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connecting to {name}...</source>
        <translation>Connexion à {name}...</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connects and looks. Nothing is written to the database.</source>
        <translation>Se connecte et regarde. Rien n&apos;est écrit dans la base de données.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>For example {example}; ?sslmode=verify-full behind it asks for encryption.</source>
        <translation>Par exemple {example} ; ?sslmode=verify-full à la suite demande le chiffrement.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Frames: the bytes on the wire.
Secrets: passwords, keys and tokens, also those inside parameters and results.
Devices with their addresses and settings, and this workspace&apos;s file.</source>
        <translation>Trames : les octets sur la ligne.
Secrets : mots de passe, clés et jetons, aussi dans les paramètres et les résultats.
Appareils avec leurs adresses et réglages, et le fichier de cet espace de travail.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>How the push is now</source>
        <translation>État actuel de la copie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>It is switched off.</source>
        <translation>Elle est désactivée.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Keep the password for this session only</source>
        <translation>Garder le mot de passe pour cette session seulement</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Leave without saving</source>
        <translation>Quitter sans enregistrer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Left empty, the one that is kept for this address is used, or a .pgpass file.</source>
        <translation>Laissé vide, c&apos;est celui conservé pour cette adresse qui est utilisé, ou un fichier .pgpass.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Now: {word}. {text}</source>
        <translation>Maintenant : {word}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Otherwise it goes to the keyring of this computer. It never stands in the workspace or the log.</source>
        <translation>Sinon, il va dans le trousseau de clés de cet ordinateur. Il ne figure jamais dans l&apos;espace de travail ni dans le journal.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Password</source>
        <translation>Mot de passe</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Samples: meter, quantity, unit, time, value, and the meter&apos;s own time.
Interactions: meter, command, status, times, parameters, result and failure.
The name of this workspace, and a random id for it.</source>
        <translation>Échantillons : compteur, grandeur, unité, heure, valeur et heure propre du compteur.
Interactions : compteur, commande, statut, heures, paramètres, résultat et échec.
Le nom de cet espace de travail, et un identifiant aléatoire pour lui.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Save the changes</source>
        <translation>Enregistrer les modifications</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Start the push</source>
        <translation>Démarrer la copie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Still needed: an address of a database.</source>
        <translation>Encore requis : l&apos;adresse d&apos;une base de données.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Stop the push</source>
        <translation>Arrêter la copie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Team database</source>
        <translation>Base d&apos;équipe</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>The test was stopped.</source>
        <translation>Le test a été arrêté.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>There was no result in {n} s. Check the address, then test again.</source>
        <translation>Aucun résultat en {n} s. Vérifiez l&apos;adresse, puis testez à nouveau.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What goes there</source>
        <translation>Ce qui y va</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What never leaves</source>
        <translation>Ce qui ne sort jamais</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>While this workspace is open, what is new in it is copied to a PostgreSQL that a team shares, for dashboards and reports. Nothing on the bench waits for it; what it misses is sent later.</source>
        <translation>Tant que cet espace de travail est ouvert, ses nouveautés sont copiées dans un PostgreSQL partagé par une équipe, pour tableaux de bord et rapports. Rien sur le banc ne l&apos;attend ; ce qui lui manque est envoyé plus tard.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>{variable} is set in the environment of this program and is used.</source>
        <translation>{variable} est défini dans l&apos;environnement de ce programme et est utilisé.</translation>
    </message>
</context>
<context>
    <name>TextView</name>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Control characters</source>
        <translation>Caractères de commande</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Copy text</source>
        <translation>Copier le texte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Next</source>
        <translation>Suivant</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Places found</source>
        <translation>Occurrences trouvées</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Previous</source>
        <translation>Précédent</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Search this text</source>
        <translation>Rechercher dans ce texte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>The whole text as it was received, to the clipboard</source>
        <translation>Le texte entier tel que reçu, dans le presse-papiers</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>not found</source>
        <translation>introuvable</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>{at} of {count}</source>
        <translation>{at} sur {count}</translation>
    </message>
</context>
<context>
    <name>ThresholdAlarms</name>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is no longer watched for the threshold {threshold}.</source>
        <translation>{name} n&apos;est plus surveillé pour le seuil {threshold}.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value} again, within the threshold {threshold}.</source>
        <translation>{name} vaut de nouveau {value}, dans les limites du seuil {threshold}.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, above the threshold {threshold}.</source>
        <translation>{name} vaut {value}, au-dessus du seuil {threshold}.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, below the threshold {threshold}.</source>
        <translation>{name} vaut {value}, au-dessous du seuil {threshold}.</translation>
    </message>
</context>
<context>
    <name>ThresholdDialog</name>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add a threshold</source>
        <translation>Ajouter un seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add the threshold</source>
        <translation>Ajouter le seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Choose which curves the threshold is of.</source>
        <translation>Choisissez les courbes auxquelles le seuil s&apos;applique.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve in {unit}</source>
        <translation>Toutes les courbes en {unit}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve without a unit</source>
        <translation>Toutes les courbes sans unité</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>How far it has to come back before it counts as within again.</source>
        <translation>Retour nécessaire avant d&apos;être de nouveau dans les limites.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Hysteresis</source>
        <translation>Hystérésis</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave as it was</source>
        <translation>Laisser comme avant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave without adding</source>
        <translation>Quitter sans ajouter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Only {curve}</source>
        <translation>Seulement {curve}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Remove the threshold</source>
        <translation>Retirer le seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Save the threshold</source>
        <translation>Enregistrer le seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Stands at its line.</source>
        <translation>Figure sur sa ligne.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Still needed: {what}.</source>
        <translation>Encore requis : {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Tell when a value is</source>
        <translation>Signaler quand une valeur est</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Threshold</source>
        <translation>Seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Told as</source>
        <translation>Signalé comme</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>What will be told</source>
        <translation>Ce qui sera signalé</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Which curves</source>
        <translation>Quelles courbes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value</source>
        <translation>une valeur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value that is a number</source>
        <translation>une valeur qui soit un nombre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>above the threshold</source>
        <translation>au-dessus du seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>below the threshold</source>
        <translation>au-dessous du seuil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>which curves</source>
        <translation>quelles courbes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is above {limit}, over when one is {back} or less.</source>
        <translation>{who} : {severity} dès qu&apos;une valeur dépasse {limit}, terminé quand elle vaut {back} ou moins.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is below {limit}, over when one is {back} or more.</source>
        <translation>{who} : {severity} dès qu&apos;une valeur passe sous {limit}, terminé quand elle vaut {back} ou plus.</translation>
    </message>
</context>
<context>
    <name>TrialPage</name>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it</source>
        <translation>Le &amp;nommer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it without a good test</source>
        <translation>Le &amp;nommer sans test réussi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Passwords and keys, where the device wants them</source>
        <translation>Mots de passe et clés, si l&apos;appareil les demande</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Reached by</source>
        <translation>Joint par</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Serial number</source>
        <translation>Numéro de série</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Encore requis : {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test a&amp;gain</source>
        <translation>Tester à &amp;nouveau</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test of {name}</source>
        <translation>Test de {name}</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>The test is under way.</source>
        <translation>Le test est en cours.</translation>
    </message>
</context>
<context>
    <name>Value</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>no</source>
        <translation>non</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>yes</source>
        <translation>oui</translation>
    </message>
</context>
<context>
    <name>ValueTree</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n entries</source>
        <translation>
            <numerusform>%n entrée</numerusform>
            <numerusform>%n entrées</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>(nothing)</source>
        <translation>(rien)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy name and value</source>
        <translation>Copier le nom et la valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy value</source>
        <translation>Copier la valeur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Name</source>
        <translation>Nom</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Unit</source>
        <translation>Unité</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Valeur</translation>
    </message>
</context>
<context>
    <name>Verdict</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>cannot be checked here</source>
        <translation>non vérifiable ici</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>genuine</source>
        <translation>authentique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: key of another kind</source>
        <translation>pas vérifié : clé d&apos;un autre type</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: no key</source>
        <translation>pas vérifié : aucune clé</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: unusable key</source>
        <translation>pas vérifié : clé inutilisable</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not genuine</source>
        <translation>pas authentique</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not readable</source>
        <translation>illisible</translation>
    </message>
</context>
<context>
    <name>ViewTabs</name>
    <message>
        <location filename="../../ui/views.py"/>
        <source>More</source>
        <translation>Plus</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>The other views. View &gt; Go to has all of them.</source>
        <translation>Les autres vues. Affichage &gt; Aller à les a toutes.</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>Views</source>
        <translation>Vues</translation>
    </message>
</context>
<context>
    <name>WayDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way</source>
        <translation>Ajouter la voie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way {name}</source>
        <translation>Ajouter la voie {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Another way to {name}</source>
        <translation>Autre voie vers {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>As it is called in menus, for example: through the head-end.</source>
        <translation>Comme elle s&apos;appelle dans les menus, par exemple : par la tête de réseau.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>It had no name, because it was the only one.</source>
        <translation>Elle n&apos;avait pas de nom, étant la seule.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the new way</source>
        <translation>Nom de la nouvelle voie</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the way in use</source>
        <translation>Nom de la voie utilisée</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>On the new way it stands in</source>
        <translation>Par la nouvelle voie, rattaché à</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{name} has a way of that name already.</source>
        <translation>{name} a déjà une voie de ce nom.</translation>
    </message>
</context>
<context>
    <name>WelcomePage</name>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A bench for smart meters: connect, command, measure, replay.</source>
        <translation>Un banc pour compteurs communicants : connecter, commander, mesurer, rejouer.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A workspace or export that somebody sent: read, filter, replay. Nothing in it is changed.</source>
        <translation>Un espace de travail ou un export que l&apos;on vous a envoyé : lire, filtrer, rejouer. Rien n&apos;y est modifié.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>By cable, network or gateway. It is looked for, and tested before anything is kept.</source>
        <translation>Par câble, réseau ou passerelle. Il est recherché, et testé avant d&apos;être conservé.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Connect a meter</source>
        <translation>Connecter un compteur</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Ctrl+Shift+P finds every action, device and command by typing.</source>
        <translation>Ctrl+Maj+P trouve toute action, tout appareil et toute commande en tapant.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Files used lately</source>
        <translation>Fichiers récents</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open a log</source>
        <translation>Ouvrir un journal</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open the demo site</source>
        <translation>Ouvrir le site de démonstration</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Simulated meters of every kind. No hardware, nothing to set up.</source>
        <translation>Compteurs simulés de toutes sortes. Aucun matériel, rien à configurer.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Used lately</source>
        <translation>Récents</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Welcome</source>
        <translation>Accueil</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   dans {folder}</translation>
    </message>
</context>
<context>
    <name>WherePage</name>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Look for it</source>
        <translation>&amp;Le rechercher</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Try the credentials</source>
        <translation>&amp;Essayer les identifiants</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Wait for it</source>
        <translation>&amp;L&apos;attendre</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Encore requis : {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What the search will do</source>
        <translation>Ce que fera la recherche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What will be done</source>
        <translation>Ce qui sera fait</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Where is it?</source>
        <translation>Où est-il ?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>every network of this computer</source>
        <translation>tous les réseaux de cet ordinateur</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>this computer only</source>
        <translation>cet ordinateur seulement</translation>
    </message>
</context>
<context>
    <name>_Allowed</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: =. An operation is a name; what it is given stands in the parameter.</source>
        <translation>Refusé : =. Une opération est un nom ; ce qu&apos;elle reçoit figure dans le paramètre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: a character outside printable ASCII. Write a byte as two hex digits in brackets: [0D].</source>
        <translation>Refusé : un caractère hors de l&apos;ASCII imprimable. Écrivez un octet par deux chiffres hexadécimaux entre crochets : [0D].</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The gateway understands no escapes, so it would not store the directive.</source>
        <translation>Refusé : {char}. La passerelle ne connaît aucun échappement et n&apos;enregistrerait donc pas la directive.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The id becomes a file name: only letters, digits, _ and -.</source>
        <translation>Refusé : {char}. L&apos;identifiant devient un nom de fichier : seulement des lettres, des chiffres, _ et -.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>a blank</source>
        <translation>un espace</translation>
    </message>
</context>
<context>
    <name>_NameEditor</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Name of the chart</source>
        <translation>Nom du graphique</translation>
    </message>
</context>
</TS>
