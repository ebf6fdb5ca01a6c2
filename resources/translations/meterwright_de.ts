<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="de" sourcelanguage="en">
<context>
    <name>AboutDialog</name>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>&amp;Copy the versions</source>
        <translation>Versionen &amp;kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>A bench for smart meters: connect, command, measure, replay. Free software under the Apache License 2.0; Qt is used under the LGPL and can be replaced in the folder of the program.</source>
        <translation>Ein Messplatz für intelligente Zähler: verbinden, befehlen, messen, wiedergeben. Freie Software unter der Apache License 2.0; Qt wird unter der LGPL verwendet und kann im Programmordner ersetzt werden.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>About Meterwright</source>
        <translation>Über Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Copied</source>
        <translation>Kopiert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence</source>
        <translation>Lizenz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence of {name}</source>
        <translation>Lizenz von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Meterwright {version}</source>
        <translation>Meterwright {version}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Part</source>
        <translation>Bestandteil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Parts and their licences</source>
        <translation>Bestandteile und ihre Lizenzen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Einstellungen: {config}
Arbeitsbereiche: {data}
Programmlog und Absturzberichte: {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Version</source>
        <translation>Version</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>{name} is under {licence}. Its text is not among the installed files.</source>
        <translation>{name} steht unter {licence}. Der Lizenztext liegt nicht bei den installierten Dateien.</translation>
    </message>
</context>
<context>
    <name>Accuracy</name>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A meter silent for longer breaks it off.</source>
        <translation>Schweigt ein Zähler länger, wird abgebrochen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A repeat ends after</source>
        <translation>Eine Wiederholung endet nach</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Accuracy test: {name}</source>
        <translation>Genauigkeitsprüfung: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At every load point the error is within the limit, its uncertainty included.</source>
        <translation>An jedem Lastpunkt liegt der Fehler samt Messunsicherheit innerhalb der Grenze.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At load point {points} the limit lies within the uncertainty: measure longer, or with a better reference.</source>
        <translation>Bei Lastpunkt {points} liegt die Grenze innerhalb der Messunsicherheit: Messen Sie länger oder mit einer besseren Referenz.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before every load point.</source>
        <translation>Vor jedem Lastpunkt.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before the first load point.</source>
        <translation>Vor dem ersten Lastpunkt.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Certificate number</source>
        <translation>Zertifikatsnummer</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Choose a device and one of its quantities.</source>
        <translation>Wählen Sie ein Gerät und eine seiner Größen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Class</source>
        <translation>Klasse</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Connected</source>
        <translation>Angeschlossen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Coverage factor k</source>
        <translation>Erweiterungsfaktor k</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Current (A)</source>
        <translation>Strom (A)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Drift since</source>
        <translation>Drift seither</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration (s)</source>
        <translation>Dauer (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Ended {time}</source>
        <translation>Beendet {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Energy</source>
        <translation>Energie</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error</source>
        <translation>Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error (%)</source>
        <translation>Fehler (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Everything that went in and came out</source>
        <translation>Alles, was einging und herauskam</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Expanded uncertainty</source>
        <translation>Erweiterte Messunsicherheit</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Factor</source>
        <translation>Faktor</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the certificate.</source>
        <translation>Aus dem Zertifikat.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the meter&apos;s plate.</source>
        <translation>Vom Typenschild des Zählers.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>How far the time of a value may be off; a constant delay does not count.</source>
        <translation>Wie weit die Zeit eines Werts abweichen darf; eine konstante Verzögerung zählt nicht.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It is corrected.</source>
        <translation>Er wird korrigiert.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It stands on the meter.</source>
        <translation>Sie steht auf dem Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Kind of value</source>
        <translation>Art des Werts</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Known error</source>
        <translation>Bekannter Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit</source>
        <translation>Grenze</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit from</source>
        <translation>Grenze aus</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit of its class</source>
        <translation>Grenze ihrer Klasse</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit ± (%)</source>
        <translation>Grenze ± (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load</source>
        <translation>Last</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point</source>
        <translation>Lastpunkt</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {number}: {text}</source>
        <translation>Lastpunkt {number}: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {points} has no limit, so no verdict.</source>
        <translation>Lastpunkt {points} hat keine Grenze, daher keine Bewertung.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Longest gap</source>
        <translation>Längste Lücke</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Mean power (W)</source>
        <translation>Mittlere Leistung (W)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter constant</source>
        <translation>Zählerkonstante</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test</source>
        <translation>Prüfling</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test (Wh)</source>
        <translation>Prüfling (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name of the test</source>
        <translation>Name der Prüfung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>No.</source>
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Of that uncertainty; mostly 2.</source>
        <translation>Zu dieser Messunsicherheit; meist 2.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Phases</source>
        <translation>Phasen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Power factor</source>
        <translation>Leistungsfaktor</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference</source>
        <translation>Referenz</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference (Wh)</source>
        <translation>Referenz (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeat</source>
        <translation>Wiederholung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeats</source>
        <translation>Wiederholungen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Resolution</source>
        <translation>Auflösung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Rules</source>
        <translation>Regeln</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Settling</source>
        <translation>Einschwingen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start (UTC)</source>
        <translation>Start (UTC)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start and stop at readings of</source>
        <translation>Start und Stopp bei Werten von</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Take the meter that is read more seldom.</source>
        <translation>Nehmen Sie den seltener gelesenen Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The error is beyond the limit at load point {points}.</source>
        <translation>Der Fehler überschreitet die Grenze bei Lastpunkt {points}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The smallest step that the meter&apos;s value makes.</source>
        <translation>Der kleinste Schritt im Wert des Zählers.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>This class has no limits for meters connected so.</source>
        <translation>Diese Klasse hat keine Grenzen für so angeschlossene Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Timing</source>
        <translation>Zeitfehler</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Transformer ratio, else 1.</source>
        <translation>Wandlerverhältnis, sonst 1.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Voltage (V)</source>
        <translation>Spannung (V)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Warm-up</source>
        <translation>Aufwärmen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What it may have moved since.</source>
        <translation>Mögliche Abweichung seither.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Where there is no certificate.</source>
        <translation>Wenn es kein Zertifikat gibt.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Without one, state a limit for each load point.</source>
        <translation>Ohne Klasse geben Sie für jeden Lastpunkt eine Grenze an.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of energy</source>
        <translation>ein Energiezählwerk</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of pulses</source>
        <translation>ein Impulszähler</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a time</source>
        <translation>einer Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>all phases</source>
        <translation>alle Phasen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>an energy of the reference</source>
        <translation>einer Energie der Referenz</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>broken off</source>
        <translation>abgebrochen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>class {name}, {standard}</source>
        <translation>Klasse {name}, {standard}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>directly</source>
        <translation>direkt</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>done</source>
        <translation>erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>fail</source>
        <translation>nicht bestanden</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>later</source>
        <translation>später</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>measuring</source>
        <translation>misst</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>no verdict</source>
        <translation>keine Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>none</source>
        <translation>keine</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>one phase</source>
        <translation>eine Phase</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pass</source>
        <translation>bestanden</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>power</source>
        <translation>Leistung</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pulses</source>
        <translation>Impulse</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>set the load</source>
        <translation>Last einstellen</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>settling</source>
        <translation>schwingt ein</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>through current transformers</source>
        <translation>über Stromwandler</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>undecided</source>
        <translation>unentschieden</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>{done} of {planned} load points were measured.</source>
        <translation>{done} von {planned} Lastpunkten wurden gemessen.</translation>
    </message>
</context>
<context>
    <name>AccuracyPanel</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A test is under way: see Measurement. What is changed here is for the next one.</source>
        <translation>Eine Prüfung läuft: siehe Messung. Änderungen hier gelten für die nächste.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy</source>
        <translation>Genauigkeit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} of {count}: {error}, {verdict}.</source>
        <translation>Genauigkeitsprüfung: Lastpunkt {number} von {count}: {error}, {verdict}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} was broken off: {reason}.</source>
        <translation>Genauigkeitsprüfung: Lastpunkt {number} wurde abgebrochen: {reason}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>An accuracy test compares a meter under test with a reference meter.
No meter has told energy or power yet. Connect both in the tree on the left: as soon as their values come, the test is planned here.</source>
        <translation>Eine Genauigkeitsprüfung vergleicht einen Prüfling mit einem Referenzzähler.
Noch kein Zähler hat Energie oder Leistung gemeldet. Verbinden Sie beide im Baum links: Sobald ihre Werte kommen, wird die Prüfung hier geplant.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measurement</source>
        <translation>Messung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Plan</source>
        <translation>Plan</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results</source>
        <translation>Ergebnisse</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load of the next one.</source>
        <translation>Stellen Sie die Last des nächsten ein.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This is a recording: a test needs live meters. Open a workspace to measure.</source>
        <translation>Dies ist eine Aufzeichnung: Eine Prüfung braucht laufende Zähler. Öffnen Sie zum Messen einen Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Views of the test</source>
        <translation>Ansichten der Prüfung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the test was ended</source>
        <translation>die Prüfung wurde beendet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the workspace was closed</source>
        <translation>der Arbeitsbereich wurde geschlossen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, Seriennummer {serial}</translation>
    </message>
</context>
<context>
    <name>Actions</name>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;About Meterwright</source>
        <translation>Ü&amp;ber Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Accuracy test</source>
        <translation>Genauigkeits&amp;prüfung</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Arm writing</source>
        <translation>S&amp;chreiben freigeben</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Chart</source>
        <translation>D&amp;iagramm</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Close the chart</source>
        <translation>Diagramm &amp;schließen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Compare logs, meters or readings</source>
        <translation>Logs, Zähler oder Auslesungen &amp;vergleichen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Connect</source>
        <translation>&amp;Verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Disconnect</source>
        <translation>&amp;Trennen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Duplicate the chart</source>
        <translation>Diagramm &amp;duplizieren</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Edit the connection...</source>
        <translation>Verbin&amp;dung bearbeiten...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Export the log...</source>
        <translation>Log &amp;exportieren...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;File</source>
        <translation>&amp;Datei</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Filter</source>
        <translation>&amp;Filter</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Go to</source>
        <translation>&amp;Gehe zu</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Help</source>
        <translation>&amp;Hilfe</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Keyboard shortcuts</source>
        <translation>&amp;Tastenkürzel</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New chart</source>
        <translation>&amp;Neues Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New workspace...</source>
        <translation>&amp;Neuer Arbeitsbereich...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Open workspace...</source>
        <translation>&amp;Arbeitsbereich öffnen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Pause or resume the chart</source>
        <translation>Diagramm an&amp;halten oder fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Quit</source>
        <translation>&amp;Beenden</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Read everything</source>
        <translation>Alles aus&amp;lesen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Replay a log...</source>
        <translation>Log &amp;wiedergeben...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Same time in all charts</source>
        <translation>&amp;Gleiche Zeit in allen Diagrammen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Send a command...</source>
        <translation>&amp;Befehl senden...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Share a part of the log...</source>
        <translation>&amp;Teil des Logs weitergeben...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Team database...</source>
        <translation>Tea&amp;m-Datenbank...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Threshold...</source>
        <translation>Sch&amp;wellwert...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Undo the last change</source>
        <translation>Letzte Änderung rüc&amp;kgängig machen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;View</source>
        <translation>&amp;Ansicht</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A battery system as a picture: grid, inverter, load and battery.</source>
        <translation>Ein Batteriesystem als Bild: Netz, Wechselrichter, Last und Batterie.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A curve computed from others, for example U * I.</source>
        <translation>Eine aus anderen berechnete Kurve, zum Beispiel U * I.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A meter against a reference, load point by load point.</source>
        <translation>Ein Zähler gegen eine Referenz, Lastpunkt für Lastpunkt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Accuracy</source>
        <translation>Genauigkeit</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add another &amp;way...</source>
        <translation>&amp;Weiteren Weg hinzufügen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add the devices that stand in a TOML or CSV file to this workspace.</source>
        <translation>Die Geräte aus einer TOML- oder CSV-Datei zu diesem Arbeitsbereich hinzufügen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>All charts show the same range of time and move together.</source>
        <translation>Alle Diagramme zeigen denselben Zeitbereich und bewegen sich gemeinsam.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Another chart beside these, with curves of its own.</source>
        <translation>Ein weiteres Diagramm neben diesen, mit eigenen Kurven.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Batch</source>
        <translation>Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Change the name, the place or the connection of this device.</source>
        <translation>Name, Platz oder Verbindung dieses Geräts ändern.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Charts of what the meters tell.</source>
        <translation>Diagramme dessen, was die Zähler melden.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Chec&amp;k the log...</source>
        <translation>Log &amp;prüfen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose a device first.</source>
        <translation>Wählen Sie zuerst ein Gerät.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose the way to this meter: directly, or through a head-end.</source>
        <translation>Den Weg zu diesem Zähler wählen: direkt oder über ein Head-End.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose what is in front of you; it is looked for, tested and saved.</source>
        <translation>Wählen, was vor Ihnen liegt; es wird gesucht, getestet und gespeichert.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close every link and leave.</source>
        <translation>Alle Verbindungen schließen und das Programm verlassen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close the link to this device. Commands that wait go on waiting.</source>
        <translation>Die Verbindung zu diesem Gerät schließen. Wartende Befehle warten weiter.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours of the s&amp;ystem</source>
        <translation>Farben des S&amp;ystems</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours, language, times, folders and how long writing stays armed.</source>
        <translation>Farben, Sprache, Zeiten, Ordner und wie lange das Schreiben freigegeben bleibt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Com&amp;pare with another meter...</source>
        <translation>&amp;Mit anderem Zähler vergleichen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Command p&amp;alette...</source>
        <translation>Befehls&amp;palette...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands of {device} go this way from now on.</source>
        <translation>Befehle an {device} nehmen von jetzt an diesen Weg.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands that change something may be sent for some minutes; then this window only reads again.</source>
        <translation>Befehle, die etwas ändern, dürfen einige Minuten lang gesendet werden; danach liest dieses Fenster wieder nur.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commiss&amp;ion...</source>
        <translation>In Betrieb &amp;nehmen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commission</source>
        <translation>In Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commissioning</source>
        <translation>Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Compare</source>
        <translation>Vergleich</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Connect a &amp;new meter...</source>
        <translation>Neuen &amp;Zähler verbinden...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Curves of a CSV file, a recording or another workspace to compare with.</source>
        <translation>Vergleichskurven aus einer CSV-Datei, einer Aufzeichnung oder einem anderen Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Da&amp;rk colours</source>
        <translation>&amp;Dunkle Farben</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Dark on light, whatever the desktop says.</source>
        <translation>Dunkel auf hell, unabhängig vom Desktop.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Deri&amp;ved quantity...</source>
        <translation>Abgele&amp;itete Größe...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Devices, commands and the fourteen steps.</source>
        <translation>Geräte, Befehle und die vierzehn Schritte.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Enter every setting of a meter or gateway, or add a site or grid.</source>
        <translation>Alle Einstellungen eines Zählers oder Gateways eingeben oder einen Standort oder ein Netz hinzufügen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every command and every answer, filtered as you like.</source>
        <translation>Jeder Befehl und jede Antwort, gefiltert wie gewünscht.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every key of the menus, the charts, the log and the bytes.</source>
        <translation>Alle Tasten der Menüs, der Diagramme, des Logs und der Bytes.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every view of the centre, also those without a tab now.</source>
        <translation>Jede Ansicht der Mitte, auch die ohne Reiter.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Files used &amp;lately</source>
        <translation>&amp;Zuletzt verwendet</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Filter the list or log where you are.</source>
        <translation>Die aktuelle Liste oder das Log filtern.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Find any action, device or command by typing.</source>
        <translation>Jede Aktion, jedes Gerät und jeden Befehl durch Tippen finden.</translation>
    </message>
    <message>
        <source>Flo&amp;ws of this device</source>
        <translation type="vanished">Abläu&amp;fe dieses Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flow</source>
        <translation>Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flows of this de&amp;vice</source>
        <translation>Abläu&amp;fe dieses Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Forget the way {way}</source>
        <translation>Weg {way} vergessen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is &amp;online</source>
        <translation>Gateway ist &amp;online</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is o&amp;ff</source>
        <translation>Gateway ist &amp;aus</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Give the chart that is shown another name.</source>
        <translation>Dem gezeigten Diagramm einen anderen Namen geben.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go on working with a workspace: its links open and its log grows.</source>
        <translation>Mit einem Arbeitsbereich weiterarbeiten: Seine Verbindungen werden geöffnet, sein Log wächst.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commands of this device.</source>
        <translation>Zu den Befehlen dieses Geräts gehen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commissioning of this meter: its steps, and how far it is.</source>
        <translation>Zur Inbetriebnahme dieses Zählers gehen: ihre Schritte und wie weit sie ist.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the flows that suit this device, the run under way and earlier ones.</source>
        <translation>Zu den Abläufen gehen, die zu diesem Gerät passen, zum laufenden Durchlauf und zu früheren.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to {view}</source>
        <translation>Gehe zu {view}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to, rename, export, compare or remove what was recorded.</source>
        <translation>Aufgezeichnetes ansteuern, umbenennen, exportieren, vergleichen oder entfernen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is &amp;lit</source>
        <translation>Netz ist verso&amp;rgt</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is dar&amp;k</source>
        <translation>Netz ist &amp;stromlos</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Hold the picture still; recording goes on.</source>
        <translation>Das Bild anhalten; aufgezeichnet wird weiter.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Commission</source>
        <translation>Anordnung &amp;Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Lab</source>
        <translation>Anordnung &amp;Labor</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Support</source>
        <translation>Anordnung &amp;Support</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Ligh&amp;t colours</source>
        <translation>&amp;Helle Farben</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light on dark, whatever the desktop says.</source>
        <translation>Hell auf dunkel, unabhängig vom Desktop.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light or dark as the desktop says.</source>
        <translation>Hell oder dunkel, wie der Desktop es vorgibt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Live</source>
        <translation>Live</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Log</source>
        <translation>Log</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>N&amp;ote...</source>
        <translation>N&amp;otiz...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Name the time from now on, to find, export and compare it later.</source>
        <translation>Die Zeit ab jetzt benennen, um sie später zu finden, zu exportieren und zu vergleichen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Named ranges of time, to go to, export and compare.</source>
        <translation>Benannte Zeiträume zum Anspringen, Exportieren und Vergleichen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>New device &amp;by hand...</source>
        <translation>Neues Gerät von &amp;Hand...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Nothing has to be armed here: no meter is real.</source>
        <translation>Hier muss nichts freigegeben werden: Kein Zähler ist echt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>OCMF records of charging, and whether they are genuine.</source>
        <translation>OCMF-Datensätze des Ladens, und ob sie echt sind.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Objects</source>
        <translation>Objekte</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>One command or flow for many devices, from a list or chosen in the tree.</source>
        <translation>Ein Befehl oder Ablauf für viele Geräte, aus einer Liste oder im Baum gewählt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a lo&amp;g...</source>
        <translation>&amp;Log öffnen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a workspace first.</source>
        <translation>Öffnen Sie zuerst einen Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open one of the workspaces and logs used last.</source>
        <translation>Einen der zuletzt verwendeten Arbeitsbereiche und Logs öffnen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;demo site</source>
        <translation>&amp;Demo-Standort öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;log folder</source>
        <translation>&amp;Log-Ordner öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the link to this device.</source>
        <translation>Die Verbindung zu diesem Gerät öffnen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Palette</source>
        <translation>Palette</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Pause</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Push what is new in this workspace to a PostgreSQL that a team shares.</source>
        <translation>Neues aus diesem Arbeitsbereich in eine PostgreSQL-Datenbank übertragen, die sich ein Team teilt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;ference curves...</source>
        <translation>&amp;Referenzkurven...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;move the device...</source>
        <translation>&amp;Gerät entfernen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reac&amp;h it</source>
        <translation>&amp;Erreichen über</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reach {device}: {way}</source>
        <translation>{device} erreichen: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read</source>
        <translation>Auslesen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a site &amp;file...</source>
        <translation>&amp;Standortdatei einlesen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a workspace or export that somebody sent, also a damaged one. Nothing in it is changed.</source>
        <translation>Einen zugesandten Arbeitsbereich oder Export lesen, auch einen beschädigten. Nichts darin wird geändert.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readings</source>
        <translation>Auslesungen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readouts, load profiles, clocks and logs that the chosen meter has sent.</source>
        <translation>Auslesungen, Lastgänge, Uhren und Logs, die der gewählte Zähler gesendet hat.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Recordings</source>
        <translation>Aufzeichnungen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Rena&amp;me the chart</source>
        <translation>Diagramm &amp;umbenennen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Replay every command and decode its bytes again, and see what is not as it was recorded.</source>
        <translation>Jeden Befehl noch einmal abspielen und seine Bytes neu dekodieren, und sehen, was nicht so ist wie aufgezeichnet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Report</source>
        <translation>Bericht</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>S&amp;tay armed longer</source>
        <translation>Fre&amp;igabe verlängern</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save re&amp;port...</source>
        <translation>Be&amp;richt speichern...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save the report of the run that is shown as PDF, HTML or JSON.</source>
        <translation>Den Bericht des gezeigten Durchlaufs als PDF, HTML oder JSON speichern.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say how else this meter can be reached; the way in use stays in use.</source>
        <translation>Angeben, wie dieser Zähler noch erreichbar ist; der verwendete Weg bleibt in Gebrauch.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is off or cannot be reached.</source>
        <translation>Angeben, dass dieses Gateway aus oder nicht erreichbar ist.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is on and can be reached.</source>
        <translation>Angeben, dass dieses Gateway an und erreichbar ist.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has no power.</source>
        <translation>Angeben, dass dieses Netz keinen Strom hat.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has power again.</source>
        <translation>Angeben, dass dieses Netz wieder Strom hat.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say when a quantity goes beyond a limit.</source>
        <translation>Melden, wenn eine Größe eine Grenze überschreitet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between this meter and another one, aligned by command.</source>
        <translation>Sehen, worin sich dieser Zähler von einem anderen unterscheidet, nach Befehlen ausgerichtet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between two of them, aligned by command.</source>
        <translation>Sehen, worin sich zwei davon unterscheiden, nach Befehlen ausgerichtet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send</source>
        <translation>Senden</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send every read command that needs no parameter.</source>
        <translation>Alle Lesebefehle senden, die keinen Parameter brauchen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Sett&amp;ings...</source>
        <translation>E&amp;instellungen...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Show the record&amp;ings</source>
        <translation>Aufzeichnungen anz&amp;eigen</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Signed records</source>
        <translation>Signierte Datensätze</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Simulated meters of every kind, without any hardware.</source>
        <translation>Simulierte Zähler aller Arten, ganz ohne Hardware.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start a &amp;recording</source>
        <translation>&amp;Aufzeichnung starten</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start an empty workspace in a file of its own.</source>
        <translation>Einen leeren Arbeitsbereich in einer eigenen Datei beginnen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Steps with checks for the chosen device, one after the other, and a report.</source>
        <translation>Schritte mit Prüfungen für das gewählte Gerät, einer nach dem anderen, und ein Bericht.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Support &amp;bundle...</source>
        <translation>S&amp;upport-Paket...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>System</source>
        <translation>System</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take back what was added, changed or removed last.</source>
        <translation>Zurücknehmen, was zuletzt hinzugefügt, geändert oder entfernt wurde.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take the chart that is shown away. Its samples stay in the log.</source>
        <translation>Das gezeigte Diagramm wegnehmen. Seine Messwerte bleiben im Log.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this device off the list. Its log stays.</source>
        <translation>Dieses Gerät aus der Liste nehmen. Sein Log bleibt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this way to {device} off the list; the way in use stays.</source>
        <translation>Diesen Weg zu {device} aus der Liste nehmen; der verwendete Weg bleibt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Test a meter against a reference: errors, uncertainty and verdict by class.</source>
        <translation>Einen Zähler gegen eine Referenz prüfen: Fehler, Messunsicherheit und Bewertung nach Klasse.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The chart as large as it can be.</source>
        <translation>Das Diagramm so groß wie möglich.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already closed.</source>
        <translation>Die Verbindung ist bereits geschlossen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already open.</source>
        <translation>Die Verbindung ist bereits geöffnet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The log and the details of one interaction.</source>
        <translation>Das Log und die Einzelheiten eines Vorgangs.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The minutes in which may be written begin anew.</source>
        <translation>Die Minuten, in denen geschrieben werden darf, beginnen von vorn.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The only way to {device} so far.</source>
        <translation>Der bisher einzige Weg zu {device}.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The program&apos;s own log and its crash reports.</source>
        <translation>Das eigene Log des Programms und seine Absturzberichte.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The same curves, axes and range of time once more.</source>
        <translation>Dieselben Kurven, Achsen und derselbe Zeitbereich noch einmal.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The six fixed steps that put a prepaid meter into service.</source>
        <translation>Die sechs festen Schritte, die einen Prepaid-Zähler in Betrieb nehmen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is no chart yet.</source>
        <translation>Es gibt noch kein Diagramm.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is nothing to undo.</source>
        <translation>Es gibt nichts rückgängig zu machen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is only this chart; one stays.</source>
        <translation>Es gibt nur dieses Diagramm; eines bleibt immer.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay. Open the log for reading to check it.</source>
        <translation>Das ist eine Wiedergabe. Öffnen Sie das Log zum Lesen, um es zu prüfen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay; nothing can be sent or changed.</source>
        <translation>Dies ist eine Wiedergabe; es kann nichts gesendet oder geändert werden.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This log is open for reading only.</source>
        <translation>Dieses Log ist nur zum Lesen geöffnet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Version, licence and the folders in use.</source>
        <translation>Version, Lizenz und die verwendeten Ordner.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Versions, settings and checks of this computer; secrets are left out.</source>
        <translation>Versionen, Einstellungen und Prüfungen dieses Computers; Geheimnisse werden weggelassen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Watch a kept log again as if it were live. Nothing is sent to a meter.</source>
        <translation>Ein aufbewahrtes Log noch einmal wie live ansehen. Es wird nichts an einen Zähler gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What a DLMS meter holds, by class or by OBIS code.</source>
        <translation>Was ein DLMS-Zähler enthält, nach Klasse oder OBIS-Kennzahl.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What differs between two logs, meters or readings.</source>
        <translation>Worin sich zwei Logs, Zähler oder Auslesungen unterscheiden.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write a note at the time under the pointer, at cursor A, or in the middle.</source>
        <translation>Eine Notiz zur Zeit unter dem Zeiger, an Cursor A oder in der Mitte schreiben.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write interactions to a file for others; secrets are left out.</source>
        <translation>Vorgänge für andere in eine Datei schreiben; Geheimnisse werden weggelassen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write what is filtered to a file for others, with names replaced.</source>
        <translation>Das Gefilterte für andere in eine Datei schreiben; Namen werden ersetzt.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a gateway; choose one.</source>
        <translation>{name} ist kein Gateway; wählen Sie eines.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a grid; choose one.</source>
        <translation>{name} ist kein Netz; wählen Sie eines.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a meter; choose one.</source>
        <translation>{name} ist kein Zähler; wählen Sie einen.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} only groups others; choose a meter or gateway.</source>
        <translation>{name} gruppiert nur andere; wählen Sie einen Zähler oder ein Gateway.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{text} to {device}</source>
        <translation>{text} an {device}</translation>
    </message>
</context>
<context>
    <name>Actor</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>app</source>
        <translation>Programm</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>batch</source>
        <translation>Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>command line</source>
        <translation>Kommandozeile</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>commissioning</source>
        <translation>Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>flow</source>
        <translation>Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>follow up</source>
        <translation>Folgebefehl</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gatekeeper</source>
        <translation>Sendeprüfung</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>import</source>
        <translation>Import</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>order</source>
        <translation>Auftrag</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reconciler</source>
        <translation>Abgleich</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>replay</source>
        <translation>Wiedergabe</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tour</source>
        <translation>Rundgang</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>Prüfung danach</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>unaufgefordert</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>user</source>
        <translation>Benutzer</translation>
    </message>
</context>
<context>
    <name>AddressField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered in the form of a new device that connects to this computer; what is set up stays</source>
        <translation>Wird im Formular eines neuen Geräts angeboten, das sich mit diesem Computer verbindet; Eingerichtetes bleibt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Type the name or address of this computer.</source>
        <translation>Geben Sie den Namen oder die Adresse dieses Computers ein.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>every network of this computer</source>
        <translation>jedes Netzwerk dieses Computers</translation>
    </message>
</context>
<context>
    <name>Arming</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Arm for {n} min and {verb}</source>
        <translation>Für {n} min freigeben und {verb}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed</source>
        <translation>Freigegeben</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only read</source>
        <translation>Nur lesen</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only reading is allowed now.</source>
        <translation>Zurzeit ist nur Lesen erlaubt.</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Read only</source>
        <translation>Nur lesen</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>This changes something on a meter, and writing is not armed or its time is over.</source>
        <translation>Dies ändert etwas auf einem Zähler, und das Schreiben ist nicht freigegeben oder seine Zeit ist um.</translation>
    </message>
</context>
<context>
    <name>ArmingSwitch</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>&amp;Arm writing for {n} min</source>
        <translation>S&amp;chreiben für {n} min freigeben</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed {minutes}:{seconds}</source>
        <translation>Freigegeben {minutes}:{seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Re&amp;ad only from now on</source>
        <translation>Ab &amp;jetzt nur lesen</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>S&amp;tay armed for {n} min from now</source>
        <translation>Fre&amp;igabe auf {n} min ab jetzt verlängern</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Stay armed</source>
        <translation>Freigabe verlängern</translation>
    </message>
</context>
<context>
    <name>Arrivals</name>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>No link is opened by this, and it can be undone.</source>
        <translation>Dadurch wird keine Verbindung geöffnet, und es lässt sich rückgängig machen.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>One log is open at a time: {name}. The {n} others were left alone.</source>
        <translation>
            <numerusform>Es ist immer nur ein Log offen: {name}. Das {n} andere blieb unberührt.</numerusform>
            <numerusform>Es ist immer nur ein Log offen: {name}. Die {n} anderen blieben unberührt.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices</source>
        <translation>
            <numerusform>{n} Gerät einlesen</numerusform>
            <numerusform>{n} Geräte einlesen</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices from {name} into this workspace?</source>
        <translation>
            <numerusform>{n} Gerät aus {name} in diesen Arbeitsbereich einlesen?</numerusform>
            <numerusform>{n} Geräte aus {name} in diesen Arbeitsbereich einlesen?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>Site file {name}</source>
        <translation>Standortdatei {name}</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} cannot be read ({why}). Check that it is still there and may be read.</source>
        <translation>{name} kann nicht gelesen werden ({why}). Prüfen Sie, ob die Datei noch da ist und gelesen werden darf.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} has nothing new: all {n} of its devices stand in this workspace as they are there.</source>
        <translation>{name} enthält nichts Neues: Alle {n} Geräte darin stehen bereits so in diesem Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is a site file. Open or make a workspace first, then drop it again.</source>
        <translation>{name} ist eine Standortdatei. Öffnen oder erstellen Sie zuerst einen Arbeitsbereich und legen Sie sie dann erneut ab.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is nothing that can be opened here. A workspace or log (*.mwk, *.jsonl, *.csv), a site file (*.toml, *.csv) or a batch (*.csv, *.xlsx) can.</source>
        <translation>{name} kann hier nicht geöffnet werden. Möglich sind ein Arbeitsbereich oder Log (*.mwk, *.jsonl, *.csv), eine Standortdatei (*.toml, *.csv) oder ein Stapel (*.csv, *.xlsx).</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} read</source>
        <translation>
            <numerusform>{n} Gerät aus {name} eingelesen</numerusform>
            <numerusform>{n} Geräte aus {name} eingelesen</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} were read.</source>
        <translation>
            <numerusform>{n} Gerät aus {name} wurde eingelesen.</numerusform>
            <numerusform>{n} Geräte aus {name} wurden eingelesen.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{n} of {all} devices of {name} were read. {why}</source>
        <translation>{n} von {all} Geräten aus {name} wurden eingelesen. {why}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} stand in this workspace already and get the settings of the file: {names}.</source>
        <translation>
            <numerusform>{n} steht schon in diesem Arbeitsbereich und bekommt die Einstellungen der Datei: {names}.</numerusform>
            <numerusform>{n} stehen schon in diesem Arbeitsbereich und bekommen die Einstellungen der Datei: {names}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Bar</name>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 day</source>
        <translation>1 Tag</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 h</source>
        <translation>1 h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 min</source>
        <translation>1 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 s</source>
        <translation>1 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 week</source>
        <translation>1 Woche</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>10 s</source>
        <translation>10 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>15 min</source>
        <translation>15 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>5 min</source>
        <translation>5 min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>6 h</source>
        <translation>6 h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Clock</source>
        <translation>Uhr</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor A</source>
        <translation>Cursor A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor B</source>
        <translation>Cursor B</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Export</source>
        <translation>Exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Fit</source>
        <translation>Einpassen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Follow</source>
        <translation>Folgen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Hold the picture; samples keep arriving (Space)</source>
        <translation>Bild anhalten; Messwerte kommen weiter an (Leertaste)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>No cursors</source>
        <translation>Keine Cursor</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Note</source>
        <translation>Notiz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Pause</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Paused, {0} behind. Follow (Space)</source>
        <translation>Angehalten, {0} zurück. Folgen (Leertaste)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place A in the middle, or under the pointer with the key A; drag to move</source>
        <translation>A in die Mitte setzen, mit der Taste A unter den Zeiger; ziehen zum Bewegen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place B in the middle, or under the pointer with the key B; drag to move</source>
        <translation>B in die Mitte setzen, mit der Taste B unter den Zeiger; ziehen zum Bewegen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Show everything there is (F)</source>
        <translation>Alles Vorhandene zeigen (F)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of the meter</source>
        <translation>Zeit des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of this computer</source>
        <translation>Zeit dieses Computers</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time since the first sample</source>
        <translation>Zeit seit dem ersten Messwert</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Width of the time axis</source>
        <translation>Breite der Zeitachse</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Write a note at cursor A or in the middle, or under the pointer with the key N</source>
        <translation>Notiz an Cursor A oder in der Mitte schreiben, mit der Taste N unter dem Zeiger</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Writing…</source>
        <translation>Wird geschrieben…</translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Interaction</source>
        <translation>Vorgang</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Line</source>
        <translation>Zeile</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Took</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>What is wrong</source>
        <translation>Was nicht stimmt</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Why</source>
        <translation>Warum</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>all done</source>
        <translation>alle erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>can be sent</source>
        <translation>kann gesendet werden</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>left out</source>
        <translation>ausgelassen</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>not all done</source>
        <translation>nicht alle erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>step {n} of {total}</source>
        <translation>Schritt {n} von {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>stopped</source>
        <translation>angehalten</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>under way</source>
        <translation>läuft</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>{done} of {total} done</source>
        <translation>{done} von {total} erledigt</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} failed</source>
        <translation>
            <numerusform>{n} fehlgeschlagen</numerusform>
            <numerusform>{n} fehlgeschlagen</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} replaced</source>
        <translation>
            <numerusform>{n} ersetzt</numerusform>
            <numerusform>{n} ersetzt</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} under way</source>
        <translation>
            <numerusform>{n} läuft</numerusform>
            <numerusform>{n} laufen</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} waiting</source>
        <translation>
            <numerusform>{n} wartet</numerusform>
            <numerusform>{n} warten</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BatchPanel</name>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>&amp;Leave out lines with faults</source>
        <translation>Zeilen mit &amp;Fehlern auslassen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>, {n} with a fault</source>
        <translation>, {n} mit Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>A new batch of those that failed. What may have taken effect unseen is left out.</source>
        <translation>Ein neuer Stapel aus den fehlgeschlagenen. Was ungesehen gewirkt haben kann, wird ausgelassen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch</source>
        <translation>Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch {id}: {title}</source>
        <translation>Stapel {id}: {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batches</source>
        <translation>Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Begin with the meters: choose them in the tree, or import a list. Nothing is sent yet.</source>
        <translation>Beginnen Sie mit den Zählern: Wählen Sie sie im Baum, oder importieren Sie eine Liste. Noch wird nichts gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>CSV or XLSX: a column device (id, serial number or name), and the parameters by name or title.</source>
        <translation>CSV oder XLSX: eine Spalte device (ID, Seriennummer oder Name) und die Parameter nach Name oder Titel.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose a command or a flow</source>
        <translation>Wählen Sie einen Befehl oder einen Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose several meters in the tree, or all that match a filter there.</source>
        <translation>Wählen Sie mehrere Zähler im Baum, oder alle, die dort zu einem Filter passen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Column {name}: {why}</source>
        <translation>Spalte {name}: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Command or flow</source>
        <translation>Befehl oder Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Flow: {title}</source>
        <translation>Ablauf: {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Give up the rest</source>
        <translation>Rest aufgeben</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on</source>
        <translation>Fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on with batch {id}</source>
        <translation>Stapel {id} fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go to the first fault</source>
        <translation>Zum ersten Fehler gehen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list</source>
        <translation>Liste importieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list…</source>
        <translation>Liste importieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It changes something: {list}.</source>
        <translation>Es ändert etwas: {list}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It is given once more to: {devices}.</source>
        <translation>Es wird noch einmal gegeben an: {devices}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Lists of devices (*.csv *.xlsx)</source>
        <translation>Gerätelisten (*.csv *.xlsx)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members of the batch</source>
        <translation>Mitglieder des Stapels</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members that have ended</source>
        <translation>Beendete Mitglieder</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>New batch</source>
        <translation>Neuer Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it can be tried again. {why}</source>
        <translation>Nichts davon kann erneut versucht werden. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it has been sent.</source>
        <translation>Nichts davon wurde gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Save report…</source>
        <translation>Bericht speichern…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Send</source>
        <translation>Senden</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Send to {n} meters</source>
        <translation>
            <numerusform>An {n} Zähler senden</numerusform>
            <numerusform>An {n} Zähler senden</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Start the batch</source>
        <translation>Stapel starten</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Start {flow} on {n} meters</source>
        <translation>
            <numerusform>{flow} auf {n} Zähler starten</numerusform>
            <numerusform>{flow} auf {n} Zählern starten</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Stop</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Take the chosen meters</source>
        <translation>Gewählte Zähler nehmen</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Take {n} chosen meters</source>
        <translation>
            <numerusform>{n} gewählten Zähler nehmen</numerusform>
            <numerusform>{n} gewählte Zähler nehmen</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>The commands of the list</source>
        <translation>Die Befehle der Liste</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again</source>
        <translation>Fehlgeschlagene erneut versuchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again…</source>
        <translation>Fehlgeschlagene erneut versuchen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try {n} again</source>
        <translation>{n} erneut versuchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Undo import</source>
        <translation>Import rückgängig machen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Wh&amp;at</source>
        <translation>W&amp;as</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What has not left is called back. What has left comes to its end by itself.</source>
        <translation>Was noch nicht hinaus ist, wird zurückgerufen. Was hinaus ist, läuft von selbst zu Ende.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back counts as failed.</source>
        <translation>Zurückgerufenes gilt als fehlgeschlagen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back is sent now, each once.</source>
        <translation>Zurückgerufenes wird jetzt gesendet, jedes einmal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What would be sent to each meter</source>
        <translation>Was an jeden Zähler gesendet würde</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>began {time}</source>
        <translation>begonnen {time}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>line {n}</source>
        <translation>Zeile {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>tries again what failed in batch {id}</source>
        <translation>versucht erneut, was in Stapel {id} fehlschlug</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>{names} and {n} more</source>
        <translation>{names} und {n} weitere</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{name}: {n} meters</source>
        <translation>
            <numerusform>{name}: {n} Zähler</numerusform>
            <numerusform>{name}: {n} Zähler</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{n} chosen meters</source>
        <translation>
            <numerusform>{n} gewählter Zähler</numerusform>
            <numerusform>{n} gewählte Zähler</numerusform>
        </translation>
    </message>
    <message>
        <source>{n} more.</source>
        <translation type="vanished">{n} weitere.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{what} on {n} meters</source>
        <translation>
            <numerusform>{what} auf {n} Zähler</numerusform>
            <numerusform>{what} auf {n} Zählern</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BytesTab</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes from {link}</source>
        <translation>
            <numerusform>%n Byte von {link}</numerusform>
            <numerusform>%n Bytes von {link}</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes to {link}</source>
        <translation>
            <numerusform>%n Byte an {link}</numerusform>
            <numerusform>%n Bytes an {link}</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>&amp;Follow</source>
        <translation>&amp;Verfolgen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>All bytes of this link before and behind these, in their order.</source>
        <translation>Alle Bytes dieser Verbindung davor und danach, in ihrer Reihenfolge.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>As text</source>
        <translation>Als Text</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes as text</source>
        <translation>Bytes als Text</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Decoded answer</source>
        <translation>Dekodierte Antwort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Frames</source>
        <translation>Frames</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Link</source>
        <translation>Verbindung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No bytes yet. They appear here as soon as the first frame leaves or arrives.</source>
        <translation>Noch keine Bytes. Sie erscheinen hier, sobald der erste Frame hinausgeht oder ankommt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Octets</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Part</source>
        <translation>Teil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Parts of the frame</source>
        <translation>Teile des Frames</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Versuch</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Way</source>
        <translation>Richtung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>body</source>
        <translation>Body</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>first line</source>
        <translation>erste Zeile</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>headers</source>
        <translation>Header</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{text}, cut off: the log keeps the first part</source>
        <translation>{text}, abgeschnitten: Das Log behält den ersten Teil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>← in</source>
        <translation>← ein</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>→ out</source>
        <translation>→ aus</translation>
    </message>
</context>
<context>
    <name>Caretaker</name>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Another Meterwright with this profile (process {number}) does not answer. End it, or start this one with a profile of its own: --profile FOLDER.</source>
        <translation>Ein anderes Meterwright mit diesem Profil (Prozess {number}) antwortet nicht. Beenden Sie es, oder starten Sie dieses mit einem eigenen Profil: --profile FOLDER.</translation>
    </message>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Meterwright was killed by a fault last time. What is known of it is in {file}.</source>
        <translation>Meterwright wurde beim letzten Mal durch einen Programmfehler beendet. Was darüber bekannt ist, steht in {file}.</translation>
    </message>
</context>
<context>
    <name>ChartBook</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>All charts show the same range of time and move together</source>
        <translation>Alle Diagramme zeigen denselben Zeitbereich und bewegen sich gemeinsam</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Another chart beside these (Ctrl+T)</source>
        <translation>Ein weiteres Diagramm neben diesen (Strg+T)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart</source>
        <translation>Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart {name}</source>
        <translation>Diagramm {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Duplicate</source>
        <translation>Duplizieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>End the recording {name} (Ctrl+R)</source>
        <translation>Aufzeichnung {name} beenden (Strg+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Give the time from now on a name (Ctrl+R)</source>
        <translation>Der Zeit ab jetzt einen Namen geben (Strg+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Lab</source>
        <translation>Labor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>New chart</source>
        <translation>Neues Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Notes, thresholds, derived quantities and references</source>
        <translation>Notizen, Schwellwerte, abgeleitete Größen und Referenzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Record</source>
        <translation>Aufzeichnen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Rename</source>
        <translation>Umbenennen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Same time</source>
        <translation>Gleiche Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Stop {elapsed}</source>
        <translation>Beenden {elapsed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>The chart was written to {path}.</source>
        <translation>Das Diagramm wurde in {path} geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>There are {n} charts, which is the most: close one that is no longer needed.</source>
        <translation>Es gibt {n} Diagramme, mehr sind nicht möglich: Schließen Sie eines, das nicht mehr gebraucht wird.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>This is the only chart; one stays. Its curves can be taken off.</source>
        <translation>Dies ist das einzige Diagramm; eines bleibt immer. Seine Kurven lassen sich wegnehmen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>the reference of {source} added</source>
        <translation>Referenz von {source} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} added</source>
        <translation>{name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} closed</source>
        <translation>{name} geschlossen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} copy</source>
        <translation>{name} Kopie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{old} renamed to {new}</source>
        <translation>{old} in {new} umbenannt</translation>
    </message>
</context>
<context>
    <name>ChartTabs</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Charts</source>
        <translation>Diagramme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart</source>
        <translation>Dieses Diagramm schließen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart (Ctrl+W)</source>
        <translation>Dieses Diagramm schließen (Strg+W)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves</source>
        <translation>Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves, statistics and samples</source>
        <translation>Kurven, Statistik und Messwerte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Statistics</source>
        <translation>Statistik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Table</source>
        <translation>Tabelle</translation>
    </message>
</context>
<context>
    <name>Check</name>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>answer</source>
        <translation>Antwort</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>bytes</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>decoded</source>
        <translation>dekodiert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>end</source>
        <translation>Ende</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}</source>
        <translation>Frame {frame}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}, byte {offset}</source>
        <translation>Frame {frame}, Byte {offset}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>not recorded</source>
        <translation>nicht aufgezeichnet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>reason</source>
        <translation>Grund</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>status</source>
        <translation>Status</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>verdict</source>
        <translation>Bewertung</translation>
    </message>
</context>
<context>
    <name>CheckDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>%n differences.</source>
        <translation>
            <numerusform>%n Unterschied.</numerusform>
            <numerusform>%n Unterschiede.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>&amp;Open the command</source>
        <translation>Befehl ö&amp;ffnen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Check {name}</source>
        <translation>{name} prüfen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking…</source>
        <translation>Prüfung läuft…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking… %n differences so far.</source>
        <translation>
            <numerusform>Prüfung läuft… bisher %n Unterschied.</numerusform>
            <numerusform>Prüfung läuft… bisher %n Unterschiede.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Differences</source>
        <translation>Unterschiede</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>It was stopped. %n differences until then.</source>
        <translation>
            <numerusform>Angehalten. Bis dahin %n Unterschied.</numerusform>
            <numerusform>Angehalten. Bis dahin %n Unterschiede.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No difference: everything is as it was recorded.</source>
        <translation>Kein Unterschied: Alles ist so wie aufgezeichnet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No.</source>
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Now</source>
        <translation>Jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Recorded</source>
        <translation>Aufgezeichnet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Result of the check</source>
        <translation>Ergebnis der Prüfung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stop the check</source>
        <translation>Prüfung anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stopping…</source>
        <translation>Wird abgebrochen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The difference in words</source>
        <translation>Der Unterschied in Worten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is being checked</source>
        <translation>Das Log wird geprüft</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is replayed without any meter: bytes, verdicts, ends of commands and decoded answers are compared with what was recorded. Nothing in it is changed.</source>
        <translation>Das Log wird ohne Zähler wiedergegeben: Bytes, Bewertungen, Enden von Befehlen und dekodierte Antworten werden mit dem Aufgezeichneten verglichen. Nichts darin wird geändert.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>There are more than {n} differences; the others are not shown.</source>
        <translation>Es gibt mehr als {n} Unterschiede; die übrigen werden nicht gezeigt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Where</source>
        <translation>Wo</translation>
    </message>
</context>
<context>
    <name>Clock</name>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It gains {span} a day.</source>
        <translation>Sie geht {span} am Tag vor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It keeps the same distance.</source>
        <translation>Der Abstand bleibt gleich.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It loses {span} a day.</source>
        <translation>Sie geht {span} am Tag nach.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The answer does not tell how far the clock is off. Read the clock again.</source>
        <translation>Die Antwort nennt die Abweichung der Uhr nicht. Lesen Sie die Uhr erneut.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is far off: tariffs and load profile fall into wrong periods. Set it.</source>
        <translation>Die Uhr des Zählers weicht stark ab: Tarife und Lastgang fallen in falsche Perioden. Stellen Sie sie.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is off. Set it before its load profile is used for billing.</source>
        <translation>Die Uhr des Zählers weicht ab. Stellen Sie sie, bevor sein Lastgang zur Abrechnung dient.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is right.</source>
        <translation>Die Uhr des Zählers geht richtig.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>drift not told</source>
        <translation>Drift nicht angegeben</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>far off</source>
        <translation>stark abweichend</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>no drift</source>
        <translation>keine Drift</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>off</source>
        <translation>abweichend</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>right</source>
        <translation>richtig</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} ahead</source>
        <translation>{span} vor</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} behind</source>
        <translation>{span} nach</translation>
    </message>
</context>
<context>
    <name>ClockView</name>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Clock of the meter</source>
        <translation>Uhr des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Drift</source>
        <translation>Drift</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Earlier readings of the clock</source>
        <translation>Frühere Auslesungen der Uhr</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter after</source>
        <translation>Zähler nachher</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter before</source>
        <translation>Zähler vorher</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Set clock…</source>
        <translation>Uhr stellen…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>This computer then</source>
        <translation>Dieser Computer dabei</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time of the meter</source>
        <translation>Zeit des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>read</source>
        <translation>gelesen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>set</source>
        <translation>gestellt</translation>
    </message>
</context>
<context>
    <name>ColourButton</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply earlier</source>
        <translation>Früher anwenden</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply later</source>
        <translation>Später anwenden</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour and mark the rows that match a filter</source>
        <translation>Zeilen, die zu einem Filter passen, färben und markieren</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour what the filter shows</source>
        <translation>Gefiltertes färben</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colours</source>
        <translation>Farben</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>No rows are coloured yet</source>
        <translation>Noch sind keine Zeilen gefärbt</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Show what it colours</source>
        <translation>Zeigen, was gefärbt wird</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>The colours could not be saved. {why}</source>
        <translation>Die Farben konnten nicht gespeichert werden. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Undo: {what}</source>
        <translation>Rückgängig: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>colour {name}</source>
        <translation>{name} färben</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>move {name}</source>
        <translation>{name} verschieben</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>remove {name}</source>
        <translation>{name} entfernen</translation>
    </message>
</context>
<context>
    <name>Command</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Connect it first.</source>
        <translation>Verbinden Sie das Gerät zuerst.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing can be sent from here: this is a recording, or a log opened for reading.</source>
        <translation>Von hier kann nichts gesendet werden: Dies ist eine Aufzeichnung oder ein zum Lesen geöffnetes Log.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} has no such command.</source>
        <translation>{name} hat keinen solchen Befehl.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} is not connected. {why}</source>
        <translation>{name} ist nicht verbunden. {why}</translation>
    </message>
</context>
<context>
    <name>CommandPalette</name>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>An action, a device, or a command and a device</source>
        <translation>Eine Aktion, ein Gerät oder ein Befehl und ein Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Command palette</source>
        <translation>Befehlspalette</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Go to {name}</source>
        <translation>Zu {name} gehen</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Nichts passt. Versuchen Sie weniger Buchstaben.</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Results</source>
        <translation>Treffer</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>What do you want to do?</source>
        <translation>Was möchten Sie tun?</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>{command} on {device}</source>
        <translation>{command} an {device}</translation>
    </message>
</context>
<context>
    <name>CommandPanel</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Commands</source>
        <translation>Befehle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Control</source>
        <translation>Steuern</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Credit and tokens</source>
        <translation>Guthaben und Token</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked first.</source>
        <translation>Gefährlich. Sie werden vorher gefragt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked for the serial number.</source>
        <translation>Gefährlich. Sie werden nach der Seriennummer gefragt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Edit as rows…</source>
        <translation>Als Zeilen bearbeiten…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see what it can be told.</source>
        <translation>Kein Zähler gewählt.
Wählen Sie links im Baum einen, um seine Befehle zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Not on this meter</source>
        <translation>Nicht bei diesem Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing to fill in.</source>
        <translation>Nichts auszufüllen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Nichts wurde gesendet. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent: correct what is marked above.</source>
        <translation>Nichts wurde gesendet: Korrigieren Sie, was oben markiert ist.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Only reads.</source>
        <translation>Liest nur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Open issue: {what}</source>
        <translation>Offenes Problem: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Outcome of the last command</source>
        <translation>Ergebnis des letzten Befehls</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Read</source>
        <translation>Lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}, waiting at the gatekeeper.</source>
        <translation>Als {link} gespeichert, wartet auf die Sendeprüfung.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}: {status}.</source>
        <translation>Als {link} gespeichert: {status}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Search commands</source>
        <translation>Befehle suchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter accepted the token.</source>
        <translation>Der Zähler hat den Token angenommen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter refused the token.</source>
        <translation>Der Zähler hat den Token abgelehnt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Write</source>
        <translation>Schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Writes to the meter. You will be asked first.</source>
        <translation>Schreibt auf den Zähler. Sie werden vorher gefragt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{command}: {device}</source>
        <translation>{command}: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{link}: {status}.</source>
        <translation>{link}: {status}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} takes no commands itself.
Choose a meter or a gateway below it.</source>
        <translation>{name} nimmt selbst keine Befehle an.
Wählen Sie einen Zähler oder ein Gateway darunter.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{n} open issues: {what}</source>
        <translation>{n} offene Probleme: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, busy with {what}</source>
        <translation>{state}, beschäftigt mit {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, last heard {time}</source>
        <translation>{state}, zuletzt gehört {time}</translation>
    </message>
</context>
<context>
    <name>CommandQuestion</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>(not shown)</source>
        <translation>(nicht gezeigt)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Serial number of the meter</source>
        <translation>Seriennummer des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Type the {what} {serial} to go on.</source>
        <translation>Geben Sie zum Fortfahren die {what} {serial} ein.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>id</source>
        <translation>ID</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>left to the program</source>
        <translation>dem Programm überlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>serial number</source>
        <translation>Seriennummer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, Seriennummer {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} now</source>
        <translation>{what} jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} then</source>
        <translation>{what} danach</translation>
    </message>
</context>
<context>
    <name>Commissioning</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>(unit unknown)</source>
        <translation>(Einheit unbekannt)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>All steps are done.</source>
        <translation>Alle Schritte sind erledigt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}, with something to look at. {warnings}</source>
        <translation>In Betrieb genommen in {span}, mit Auffälligkeiten. {warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}.</source>
        <translation>In Betrieb genommen in {span}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Ended at step {number}, {step}, after {span}. {why}</source>
        <translation>Beendet bei Schritt {number}, {step}, nach {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed after {span}. {why}</source>
        <translation>Fehlgeschlagen nach {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed at step {number}, {step}, after {span}. {why}</source>
        <translation>Fehlgeschlagen bei Schritt {number}, {step}, nach {span}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Registration</source>
        <translation>Registrierung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number} waits: {why}</source>
        <translation>Schritt {number} wartet: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is next.</source>
        <translation>Als Nächstes folgt Schritt {number}, {step}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is on its way to the meter.</source>
        <translation>Schritt {number}, {step}, ist unterwegs zum Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is queued.</source>
        <translation>Schritt {number}, {step}, ist in der Warteschlange.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}: {warning}</source>
        <translation>Schritt {number}: {warning}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The meter is being registered. {why}</source>
        <translation>Der Zähler wird registriert. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The registration failed after {span}. {why}</source>
        <translation>Die Registrierung schlug nach {span} fehl. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting for the vendor to register the meter. Say below what came of it.</source>
        <translation>Es wird gewartet, dass der Hersteller den Zähler registriert. Geben Sie unten das Ergebnis an.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting to hear from the meter: it reports every hour. {why}</source>
        <translation>Warten auf eine Meldung des Zählers: Er meldet sich stündlich. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>not run</source>
        <translation>nicht ausgeführt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token accepted</source>
        <translation>Token angenommen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token refused</source>
        <translation>Token abgelehnt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>waits for its turn</source>
        <translation>noch nicht an der Reihe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{limit} = no limit</source>
        <translation>{limit} = keine Grenze</translation>
    </message>
</context>
<context>
    <name>CommissioningPanel</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>A new run from the first step.</source>
        <translation>Ein neuer Durchlauf ab dem ersten Schritt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device}</source>
        <translation>{device} in Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device} again</source>
        <translation>{device} erneut in Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning</source>
        <translation>Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning of {name}</source>
        <translation>Inbetriebnahme von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Everything that waits for this meter is given up, and it no longer belongs to its connection.</source>
        <translation>Alles, was auf diesen Zähler wartet, wird aufgegeben, und er gehört nicht mehr zu seinem Anschluss.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Has the vendor registered the meter?</source>
        <translation>Hat der Hersteller den Zähler registriert?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Interaction</source>
        <translation>Vorgang</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark as failed</source>
        <translation>Als fehlgeschlagen markieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark the commissioning of {device} as failed</source>
        <translation>Inbetriebnahme von {device} als fehlgeschlagen markieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Never commissioned from here. Commissioning clears tamper and credit, sets the power limit, reads voltage and power, and adds the initial credit of the grid.</source>
        <translation>Von hier noch nie in Betrieb genommen. Die Inbetriebnahme löscht Manipulationsstatus und Guthaben, stellt die Leistungsgrenze ein, liest Spannung und Leistung und bucht das Anfangsguthaben des Netzes.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see or start its commissioning.</source>
        <translation>Kein Zähler gewählt.
Wählen Sie links im Baum einen, um seine Inbetriebnahme zu sehen oder zu starten.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No, it was refused</source>
        <translation>Nein, es wurde abgelehnt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No.</source>
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Note</source>
        <translation>Notiz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Once it is under way: possible after 2 hours without progress.</source>
        <translation>Sobald sie läuft: möglich nach 2 Stunden ohne Fortschritt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and commission {device}</source>
        <translation>{device} registrieren und in Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and start</source>
        <translation>Registrieren und starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Show interaction {id}</source>
        <translation>Vorgang {id} zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Start commissioning</source>
        <translation>Inbetriebnahme starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step</source>
        <translation>Schritt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps of the commissioning</source>
        <translation>Schritte der Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps that still wait are given up. A step that is on its way may still reach the meter.</source>
        <translation>Wartende Schritte werden aufgegeben. Ein Schritt, der unterwegs ist, kann den Zähler noch erreichen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The credit on the meter is cleared: what the customer has bought and not used is lost. Then the tamper state is cleared and the power limit is set.</source>
        <translation>Das Guthaben auf dem Zähler wird gelöscht: Was der Kunde gekauft und nicht verbraucht hat, ist verloren. Danach wird der Manipulationsstatus gelöscht und die Leistungsgrenze eingestellt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Try again</source>
        <translation>Erneut versuchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall</source>
        <translation>Ausbauen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall {device}</source>
        <translation>{device} ausbauen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall…</source>
        <translation>Ausbauen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Yes, it is registered</source>
        <translation>Ja, er ist registriert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>began {time}, by {who}</source>
        <translation>begonnen {time}, von {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not a meter.
Choose a meter below it to see or start its commissioning.</source>
        <translation>{name} ist kein Zähler.
Wählen Sie einen Zähler darunter, um seine Inbetriebnahme zu sehen oder zu starten.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not commissioned from here.
Commissioning sends tokens that clear tamper and credit, and this meter takes none.</source>
        <translation>{name} wird nicht von hier in Betrieb genommen.
Die Inbetriebnahme sendet Token, die Manipulationsstatus und Guthaben löschen; dieser Zähler nimmt keine an.</translation>
    </message>
</context>
<context>
    <name>Compare</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>attempts</source>
        <translation>Versuche</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>duration</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>not there</source>
        <translation>nicht da</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>nothing</source>
        <translation>nichts</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>only on one side</source>
        <translation>nur auf einer Seite</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>parameter</source>
        <translation>Parameter</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>reason</source>
        <translation>Grund</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>result</source>
        <translation>Ergebnis</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>status</source>
        <translation>Status</translation>
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
        <translation>&amp;Dauern weichen ab ab</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A duration differs when it is longer by this much, and twice as long.</source>
        <translation>Eine Dauer weicht ab, wenn sie um so viel länger und doppelt so lang ist.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A workspace or an export; it is only read.</source>
        <translation>Ein Arbeitsbereich oder ein Export; er wird nur gelesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>CSV (*.csv)</source>
        <translation>CSV (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose a device on both sides.</source>
        <translation>Wählen Sie auf beiden Seiten ein Gerät.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file: a log does not differ from itself.</source>
        <translation>Wählen Sie die andere Datei: Ein Log unterscheidet sich nicht von sich selbst.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file…</source>
        <translation>Andere Datei wählen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different devices, or another file.</source>
        <translation>Wählen Sie zwei verschiedene Geräte oder eine andere Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different interactions, or another file.</source>
        <translation>Wählen Sie zwei verschiedene Vorgänge oder eine andere Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Co&amp;mpare</source>
        <translation>&amp;Vergleichen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare</source>
        <translation>Vergleich</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare with</source>
        <translation>Vergleichen mit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing</source>
        <translation>Vergleich läuft</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing… nothing differs so far.</source>
        <translation>Vergleich läuft… bisher kein Unterschied.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Copy row</source>
        <translation>Zeile kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device here</source>
        <translation>Gerät hier</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device there</source>
        <translation>Gerät dort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Differences</source>
        <translation>Unterschiede</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export the differences</source>
        <translation>Unterschiede exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export…</source>
        <translation>Exportieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Filter</source>
        <translation>Filter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Give the number of an interaction on both sides.</source>
        <translation>Geben Sie auf beiden Seiten die Nummer eines Vorgangs an.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>HTML (*.html)</source>
        <translation>HTML (*.html)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Here</source>
        <translation>Hier</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>How much longer a duration must be to differ</source>
        <translation>Wie viel länger eine Dauer sein muss, um abzuweichen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction here</source>
        <translation>Vorgang hier</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction there</source>
        <translation>Vorgang dort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>JSON (*.json)</source>
        <translation>JSON (*.json)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Kind of difference</source>
        <translation>Art des Unterschieds</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Logs ({patterns})</source>
        <translation>Logs ({patterns})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Looking through {name}…</source>
        <translation>{name} wird durchgesehen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>No row is chosen in the log. Choose one there first.</source>
        <translation>Im Log ist keine Zeile gewählt. Wählen Sie zuerst dort eine.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>None of the differences matches this filter. Empty the filter to see all.</source>
        <translation>Kein Unterschied passt zu diesem Filter. Leeren Sie den Filter, um alle zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing differs: every command is on both sides with the same end and the same values.</source>
        <translation>Kein Unterschied: Jeder Befehl ist auf beiden Seiten, mit gleichem Ausgang und gleichen Werten.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing was compared: {why}</source>
        <translation>Nichts wurde verglichen: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this command: {command}</source>
        <translation>Nur dieser Befehl: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this kind: {what}</source>
        <translation>Nur diese Art: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Show interaction {id}</source>
        <translation>Vorgang {id} zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stop comparing</source>
        <translation>Vergleich abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stopped. What was found until then is shown.</source>
        <translation>Abgebrochen. Gezeigt wird, was bis dahin gefunden wurde.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take the row chosen in the log</source>
        <translation>Im Log gewählte Zeile nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take this log</source>
        <translation>Dieses Log nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>The other file is being opened.</source>
        <translation>Die andere Datei wird geöffnet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There</source>
        <translation>Dort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There are more: the first {n} are shown.</source>
        <translation>Es gibt mehr: Die ersten {n} werden gezeigt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There is no interaction {n} there.</source>
        <translation>Dort gibt es keinen Vorgang {n}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>This one is only in the other file. Open that one to see its steps.</source>
        <translation>Dieser ist nur in der anderen Datei. Öffnen Sie sie, um seine Schritte zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two meters</source>
        <translation>Zwei Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two readings</source>
        <translation>Zwei Auslesungen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two sessions</source>
        <translation>Zwei Sitzungen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What differs between two logs, two meters or two readings is listed here, aligned by command.
Choose what to compare above.</source>
        <translation>Unterschiede zwischen zwei Logs, zwei Zählern oder zwei Auslesungen werden hier aufgelistet, nach Befehlen ausgerichtet.
Wählen Sie oben, was verglichen wird.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What is compared</source>
        <translation>Was verglichen wird</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Words that a row must hold</source>
        <translation>Wörter, die eine Zeile enthalten muss</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Write the rows that are shown to a file: CSV, JSON or HTML.</source>
        <translation>Die gezeigten Zeilen in eine Datei schreiben: CSV, JSON oder HTML.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>every kind</source>
        <translation>alle Arten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log too</source>
        <translation>auch dieses Log</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log: {name}</source>
        <translation>dieses Log: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{command} on {device}, {time}, {status}</source>
        <translation>{command} an {device}, {time}, {status}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences</source>
        <translation>
            <numerusform>{n} Unterschied</numerusform>
            <numerusform>{n} Unterschiede</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences were written to {path}.</source>
        <translation>
            <numerusform>{n} Unterschied wurde in {path} geschrieben.</numerusform>
            <numerusform>{n} Unterschiede wurden in {path} geschrieben.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} of {total} differences</source>
        <translation>{n} von {total} Unterschieden</translation>
    </message>
</context>
<context>
    <name>ConnectionDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;How is it reached?</source>
        <translation>&amp;Wie wird es erreicht?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;Test the connection</source>
        <translation>Verbindung &amp;testen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connect a meter</source>
        <translation>Zähler verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection</source>
        <translation>Verbindung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}</source>
        <translation>Verbindung von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}: {way}</source>
        <translation>Verbindung von {name}: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Gateway</source>
        <translation>Gateway</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Grid</source>
        <translation>Netz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>How the device is reached</source>
        <translation>Wie das Gerät erreicht wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Id</source>
        <translation>ID</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Keep passwords and keys for this session only</source>
        <translation>Passwörter und Schlüssel nur für diese Sitzung behalten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Kind</source>
        <translation>Art</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Leave without saving</source>
        <translation>Ohne Speichern verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Of this meter alone</source>
        <translation>Nur für diesen Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>One is kept already; type here to replace it.</source>
        <translation>Es ist bereits eines gespeichert; tippen Sie hier, um es zu ersetzen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Only groups others; it has no connection.</source>
        <translation>Gruppiert nur andere; hat keine Verbindung.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Otherwise they go to the keyring of this computer. They never stand in the workspace or the log.</source>
        <translation>Sonst kommen sie in den Schlüsselbund dieses Computers. Im Arbeitsbereich oder Log stehen sie nie.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save the device</source>
        <translation>Gerät speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save {name}</source>
        <translation>{name} speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Serial number</source>
        <translation>Seriennummer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Short and without blanks; used on the command line.</source>
        <translation>Kurz und ohne Leerzeichen; wird auf der Kommandozeile verwendet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site</source>
        <translation>Standort</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site or grid</source>
        <translation>Standort oder Netz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Stands in</source>
        <translation>Gehört zu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Noch nötig: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The log refers to this id, so it stays.</source>
        <translation>Das Log verweist auf diese ID, deshalb bleibt sie.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{id} is already the id of {name}.</source>
        <translation>{id} ist bereits die ID von {name}.</translation>
    </message>
</context>
<context>
    <name>ConnectionTest</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The connection works.</source>
        <translation>Die Verbindung funktioniert.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The test was stopped.</source>
        <translation>Der Test wurde abgebrochen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>There was no result in {n} s. Check the address and the cable, then test again.</source>
        <translation>Nach {n} s lag kein Ergebnis vor. Prüfen Sie Adresse und Kabel und testen Sie erneut.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Trying the connection...</source>
        <translation>Verbindung wird getestet...</translation>
    </message>
</context>
<context>
    <name>ConnectionWizard</name>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>&amp;Back</source>
        <translation>&amp;Zurück</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Connect a meter</source>
        <translation>Zähler verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Enter it by &amp;hand...</source>
        <translation>Von &amp;Hand eingeben...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Leave without saving</source>
        <translation>Ohne Speichern verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Save</source>
        <translation>Speichern</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Search</source>
        <translation>Suchen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Test</source>
        <translation>Test</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>The form with every setting; it begins with what is known by now.</source>
        <translation>Das Formular mit allen Einstellungen; es beginnt mit dem bisher Bekannten.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Where</source>
        <translation>Wo</translation>
    </message>
</context>
<context>
    <name>CrashDialog</name>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Copy the report</source>
        <translation>Bericht &amp;kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Hide the report</source>
        <translation>Bericht &amp;ausblenden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Open its folder</source>
        <translation>Seinen &amp;Ordner öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Show the report</source>
        <translation>Bericht &amp;anzeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program has ended Meterwright.</source>
        <translation>Ein Programmfehler hat Meterwright beendet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program stopped what it was just doing.</source>
        <translation>Ein Programmfehler hat die laufende Aktion abgebrochen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Close this message</source>
        <translation>Meldung schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Copied</source>
        <translation>Kopiert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Go on working</source>
        <translation>Weiterarbeiten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Report</source>
        <translation>Bericht</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Something went wrong in Meterwright</source>
        <translation>In Meterwright ist etwas schiefgegangen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The last thing you did may not have happened; the log says what was sent. Everything else goes on. Send the report to whoever looks after Meterwright.</source>
        <translation>Ihre letzte Aktion wurde möglicherweise nicht ausgeführt; im Log steht, was gesendet wurde. Alles andere läuft weiter. Senden Sie den Bericht an die Person, die Meterwright betreut.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The report is in {file}.</source>
        <translation>Der Bericht liegt in {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The workspace is whole: what was sent stands in its log, and what was under way is looked after at the next start. Send the report to whoever looks after Meterwright.</source>
        <translation>Der Arbeitsbereich ist unversehrt: Was gesendet wurde, steht in seinem Log; was noch lief, wird beim nächsten Start geklärt. Senden Sie den Bericht an die Person, die Meterwright betreut.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Faults since this message came: {n}; the newest is shown.</source>
        <translation>{text} Programmfehler seit dieser Meldung: {n}; gezeigt wird der neueste.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Passwords, keys and tokens are left out of it.</source>
        <translation>{text} Passwörter, Schlüssel und Token sind daraus entfernt.</translation>
    </message>
</context>
<context>
    <name>CurvePicker</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>– choose –</source>
        <translation>– wählen –</translation>
    </message>
</context>
<context>
    <name>DerivedDialog</name>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Expression</source>
        <translation>&amp;Ausdruck</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Insert a function</source>
        <translation>Funktion &amp;einfügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add a derived quantity</source>
        <translation>Abgeleitete Größe hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add the quantity</source>
        <translation>Größe hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curve of {name}</source>
        <translation>Kurve von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curves of its names</source>
        <translation>Kurven ihrer Namen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Decimals shown</source>
        <translation>Gezeigte Nachkommastellen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Derived quantity {name}</source>
        <translation>Abgeleitete Größe {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Expression</source>
        <translation>Ausdruck</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>It comes of the curves: {unit}. State another of its kind to have the numbers converted.</source>
        <translation>Ergibt sich aus den Kurven: {unit}. Geben Sie eine andere derselben Art an, um die Zahlen umzurechnen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Last value {value}, {time}. Lowest {low}, highest {high} of {count} values.</source>
        <translation>Letzter Wert {value}, {time}. Niedrigster {low}, höchster {high} von {count} Werten.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave as it was</source>
        <translation>So lassen, wie es war</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave without adding</source>
        <translation>Ohne Hinzufügen verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Left empty, it is the one that comes of the curves.</source>
        <translation>Bleibt das Feld leer, gilt die Einheit, die sich aus den Kurven ergibt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Names, numbers, + - * / ** ( ) and functions, as in mean(U * I, 10 s).</source>
        <translation>Namen, Zahlen, + - * / ** ( ) und Funktionen, wie in mean(U * I, 10 s).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value in the newest {count} samples: the curves are not there at the same time, or the result is not a number.</source>
        <translation>Kein Wert in den neuesten {count} Messwerten: Die Kurven sind nicht zur gleichen Zeit da, oder das Ergebnis ist keine Zahl.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value yet: there is no sample of {curve}.</source>
        <translation>Noch kein Wert: Es gibt keinen Messwert von {curve}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Save the quantity</source>
        <translation>Größe speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Still needed: {what}.</source>
        <translation>Noch nötig: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The numbers are converted to it.</source>
        <translation>Die Zahlen werden in diese Einheit umgerechnet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The result is a pure number.</source>
        <translation>Das Ergebnis ist eine reine Zahl.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Unit of the result</source>
        <translation>Einheit des Ergebnisses</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Units are being looked up…</source>
        <translation>Einheiten werden nachgeschlagen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Value now</source>
        <translation>Wert jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>a name</source>
        <translation>ein Name</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>an expression</source>
        <translation>ein Ausdruck</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>angle, in radians</source>
        <translation>Winkel, in Radiant</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change per second</source>
        <translation>Änderung pro Sekunde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change since the sample before</source>
        <translation>Änderung seit dem vorigen Messwert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>cosine</source>
        <translation>Kosinus</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>error against a reference, in percent</source>
        <translation>Fehler gegenüber einer Referenz, in Prozent</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>kept between two limits</source>
        <translation>zwischen zwei Grenzen gehalten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>last value, however old it is</source>
        <translation>letzter Wert, egal wie alt er ist</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>logarithm to base 10</source>
        <translation>Logarithmus zur Basis 10</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>mean of the last 10 s</source>
        <translation>Mittelwert der letzten 10 s</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sine</source>
        <translation>Sinus</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>square root</source>
        <translation>Quadratwurzel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sum over time: energy of a power</source>
        <translation>Summe über die Zeit: Energie einer Leistung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the curve of {name}</source>
        <translation>die Kurve von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the larger one</source>
        <translation>der größere Wert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the smaller one</source>
        <translation>der kleinere Wert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>without its sign</source>
        <translation>ohne Vorzeichen</translation>
    </message>
</context>
<context>
    <name>DetailPanel</name>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>After</source>
        <translation>Nach</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer</source>
        <translation>Antwort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer: {text}</source>
        <translation>Antwort: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Applies</source>
        <translation>Gilt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Asks the service that has it to give it back. What has left already cannot be.</source>
        <translation>Bittet den Dienst, der den Befehl hat, ihn zurückzugeben. Was schon hinaus ist, kann nicht zurückgegeben werden.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>By</source>
        <translation>Von</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command}</source>
        <translation>{command} zurückrufen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command} again</source>
        <translation>{command} erneut zurückrufen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Calling {command} back…</source>
        <translation>{command} wird zurückgerufen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Cancel {command}</source>
        <translation>{command} abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy this line</source>
        <translation>Diese Zeile kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>End</source>
        <translation>Ende</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Event</source>
        <translation>Ereignis</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>History</source>
        <translation>Verlauf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Id</source>
        <translation>ID</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction</source>
        <translation>Vorgang</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id}</source>
        <translation>Vorgang {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>Vorgang {id} ist nicht in diesem Log.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled any more: it is on its way to the meter.</source>
        <translation>Abbrechen ist nicht mehr möglich: Der Vorgang ist unterwegs zum Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled: it has ended already.</source>
        <translation>Abbrechen ist nicht möglich: Der Vorgang ist bereits beendet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Log of the device</source>
        <translation>Log des Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No answer yet.</source>
        <translation>Noch keine Antwort.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No follow-up, batch or earlier try belongs to it.</source>
        <translation>Kein Folgevorgang, Stapel oder früherer Versuch gehört dazu.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No interaction chosen.
Choose one in the log, or send a command, and follow its steps here.</source>
        <translation>Kein Vorgang gewählt.
Wählen Sie einen im Log oder senden Sie einen Befehl und verfolgen Sie hier seine Schritte.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No rule held it up.</source>
        <translation>Keine Regel hielt ihn auf.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {command} may have happened on {device}, or not.</source>
        <translation>Niemand hat das Ergebnis gesehen: {command} ist auf {device} vielleicht geschehen oder auch nicht.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or as it was before.</source>
        <translation>Niemand hat das Ergebnis gesehen: {title} von {device} ist jetzt vielleicht {new} oder wie zuvor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or still {old}.</source>
        <translation>Niemand hat das Ergebnis gesehen: {title} von {device} ist jetzt vielleicht {new} oder noch {old}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not called back: {text}</source>
        <translation>Nicht zurückgerufen: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not tried yet: nothing has left this machine.</source>
        <translation>Noch nicht versucht: Nichts hat diesen Rechner verlassen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nothing can be sent from here: this log is open for reading only.</source>
        <translation>Von hier kann nichts gesendet werden: Dieses Log ist nur zum Lesen geöffnet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Open in Readings</source>
        <translation>In Auslesungen öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back on {device}: {command}</source>
        <translation>Auf {device} zurückstellen: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back {value} on {device}</source>
        <translation>{value} auf {device} zurückstellen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Read back from {device}</source>
        <translation>Von {device} zurücklesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reading interaction {id}…</source>
        <translation>Vorgang {id} wird gelesen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reference</source>
        <translation>Referenz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related</source>
        <translation>Verwandt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related ({count})</source>
        <translation>Verwandt ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related interactions</source>
        <translation>Verwandte Vorgänge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Request</source>
        <translation>Anfrage</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rule</source>
        <translation>Regel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rules of the gatekeeper</source>
        <translation>Regeln der Sendeprüfung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Say what {device} shows…</source>
        <translation>Angeben, was {device} zeigt…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Show {term} in the log</source>
        <translation>{term} im Log zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Started</source>
        <translation>Gestartet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Status</source>
        <translation>Status</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Step</source>
        <translation>Schritt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Steps</source>
        <translation>Schritte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Stop {command}</source>
        <translation>{command} stoppen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The device has written no log.</source>
        <translation>Das Gerät hat kein Log geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The log keeps no verdict of the gatekeeper for it.</source>
        <translation>Das Log enthält dafür keine Bewertung der Sendeprüfung.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>There is no answer.</source>
        <translation>Es gibt keine Antwort.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time ({zone})</source>
        <translation>Zeit ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Took</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries</source>
        <translation>Versuche</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries ({count})</source>
        <translation>Versuche ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Versuch</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try {command} again</source>
        <translation>{command} erneut versuchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Views of the interaction</source>
        <translation>Ansichten des Vorgangs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What it looked at</source>
        <translation>Was sie betrachtet hat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Which rules let it go, held it up or ended it, asked again here.</source>
        <translation>Welche Regeln ihn durchließen, aufhielten oder beendeten, hier erneut gefragt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why</source>
        <translation>Warum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why: {reason}</source>
        <translation>Warum: {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>after {span}</source>
        <translation>nach {span}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>answered</source>
        <translation>beantwortet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>lost when the program ended</source>
        <translation>beim Programmende verloren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>no</source>
        <translation>nein</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>since {time}</source>
        <translation>seit {time}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>try {number}</source>
        <translation>Versuch {number}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>under way</source>
        <translation>läuft</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>yes</source>
        <translation>ja</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} is being called back: what comes of it will stand here.</source>
        <translation>{command} wird zurückgerufen: Das Ergebnis steht dann hier.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} needs no parameters.</source>
        <translation>{command} braucht keine Parameter.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{step}: {text}</source>
        <translation>{step}: {text}</translation>
    </message>
</context>
<context>
    <name>Detection</name>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>No meter answered. Look at the cable, the optical head and the power of the meter, then detect again.</source>
        <translation>Kein Zähler hat geantwortet. Prüfen Sie Kabel, Optokopf und Stromversorgung des Zählers und starten Sie die Erkennung erneut.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>Octets came, but at no rate could they be read. Seat the optical head again, or look whether another program or meter speaks on this line.</source>
        <translation>Es kamen Bytes an, die sich aber mit keiner Baudrate lesen ließen. Setzen Sie den Optokopf neu auf, oder prüfen Sie, ob ein anderes Programm oder ein anderer Zähler auf dieser Leitung spricht.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format} in mode {mode}.</source>
        <translation>Der Zähler antwortet mit {format} im Modus {mode}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format}.</source>
        <translation>Der Zähler antwortet mit {format}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>These settings were taken over, and are tried first for this model from now on.</source>
        <translation>Diese Einstellungen wurden übernommen und werden für dieses Modell ab jetzt zuerst versucht.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by software</source>
        <translation>durch Software</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by the port</source>
        <translation>durch die Schnittstelle</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>found</source>
        <translation>gefunden</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>identified</source>
        <translation>erkannt</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>not found</source>
        <translation>nicht gefunden</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>silent</source>
        <translation>still</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unreadable</source>
        <translation>unlesbar</translation>
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
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Parity</source>
        <translation>Parität</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received</source>
        <translation>Empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received as text</source>
        <translation>Empfangen als Text</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Sent</source>
        <translation>Gesendet</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Took (s)</source>
        <translation>Dauer (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
</context>
<context>
    <name>DeviceTreeModel</name>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Busy with {command}</source>
        <translation>Beschäftigt mit {command}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Commands that need it wait until it is back for 5 minutes.</source>
        <translation>Befehle, die es brauchen, warten, bis es 5 Minuten lang zurück ist.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Drag onto a chart, or double click to add a curve.</source>
        <translation>Auf ein Diagramm ziehen oder doppelklicken, um eine Kurve hinzuzufügen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Id: {id}</source>
        <translation>ID: {id}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Its generation is not managed here, so this holds nothing back.</source>
        <translation>Seine Generation wird hier nicht verwaltet, es hält also nichts zurück.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last contact: {time}</source>
        <translation>Letzter Kontakt: {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last word on this: {time}</source>
        <translation>Letzte Angabe dazu: {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Model: {model}</source>
        <translation>Modell: {model}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Now</source>
        <translation>Jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Older than 10 minutes, so it counts as unknown and holds nothing back.</source>
        <translation>Älter als 10 Minuten, gilt also als unbekannt und hält nichts zurück.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Open issue: {what}</source>
        <translation>Offenes Problem: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Serial number: {serial}</source>
        <translation>Seriennummer: {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>State, now</source>
        <translation>Zustand, jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Switched off by a person; this holds until somebody says that it is online.</source>
        <translation>Von einer Person ausgeschaltet; das gilt, bis jemand angibt, dass es online ist.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>empty</source>
        <translation>leer</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{age} old</source>
        <translation>{age} alt</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total}</source>
        <translation>{n} von {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total} online</source>
        <translation>{n} von {total} online</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} wait</source>
        <translation>
            <numerusform>{n} wartet</numerusform>
            <numerusform>{n} warten</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, value {age} old</source>
        <translation>{state}, Wert {age} alt</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {age} old</source>
        <translation>{state}, {age} alt</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {n} wait</source>
        <translation>
            <numerusform>{state}, {n} wartet</numerusform>
            <numerusform>{state}, {n} warten</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>DevicesPanel</name>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Choose every device that matches, for one command to all of them.</source>
        <translation>Jedes passende Gerät wählen, für einen Befehl an alle.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Connect a meter</source>
        <translation>Zähler verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices</source>
        <translation>Geräte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices that match</source>
        <translation>Passende Geräte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Name, id, serial number, model or state; or a filter:
device name adapter kind serial model link meter site grid gateway fact.NAME
Down or Ctrl+Space shows what may stand here.</source>
        <translation>Name, ID, Seriennummer, Modell oder Zustand; oder ein Filter:
device name adapter kind serial model link meter site grid gateway fact.NAME
Nach unten oder Strg+Leertaste zeigt, was hier stehen darf.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No device matches. Esc shows all.</source>
        <translation>Kein Gerät passt. Esc zeigt alle.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No devices yet. Connect a meter or open the demo site.</source>
        <translation>Noch keine Geräte. Verbinden Sie einen Zähler oder öffnen Sie den Demo-Standort.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Open the demo site</source>
        <translation>Demo-Standort öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices</source>
        <translation>Geräte suchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices, or  link:fault kind:meter</source>
        <translation>Geräte suchen, oder  link:fault kind:meter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Select all matching</source>
        <translation>Alle passenden wählen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} devices are chosen.</source>
        <translation>{n} Geräte sind gewählt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} of {total} devices</source>
        <translation>{n} von {total} Geräten</translation>
    </message>
</context>
<context>
    <name>DifferenceModel</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># here</source>
        <translation>Nr. hier</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># there</source>
        <translation>Nr. dort</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Here</source>
        <translation>Hier</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>No.</source>
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>There</source>
        <translation>Dort</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Where</source>
        <translation>Wo</translation>
    </message>
</context>
<context>
    <name>DirectiveDialog</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Add operation</source>
        <translation>Operation hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Down</source>
        <translation>Alt+Runter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Up</source>
        <translation>Alt+Hoch</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Directive</source>
        <translation>Direktive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Down</source>
        <translation>Nach unten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Enter at least one operation.</source>
        <translation>Geben Sie mindestens eine Operation ein.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id</source>
        <translation>ID</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id of the directive</source>
        <translation>ID der Direktive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Leave as it was</source>
        <translation>So lassen, wie es war</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Length of the directive</source>
        <translation>Länge der Direktive</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operation</source>
        <translation>Operation</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operations</source>
        <translation>Operationen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Parameter</source>
        <translation>Parameter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Put into the form</source>
        <translation>Ins Formular übernehmen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remark</source>
        <translation>Bemerkung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remove operation</source>
        <translation>Operation entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>The gateway stores a directive and lists it. Its public device code does not execute it: readouts and load profiles follow a fixed dialogue, whatever stands here.</source>
        <translation>Das Gateway speichert eine Direktive und listet sie auf. Sein öffentlicher Gerätecode führt sie nicht aus: Auslesungen und Lastgänge folgen einem festen Dialog, gleich was hier steht.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Up</source>
        <translation>Nach oben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unknown operation</source>
        <translation>unbekannte Operation</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unusual parameter</source>
        <translation>ungewöhnlicher Parameter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>{count} of {most} characters</source>
        <translation>{count} von {most} Zeichen</translation>
    </message>
</context>
<context>
    <name>DirectiveList</name>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n cannot be read.</source>
        <translation>
            <numerusform>%n kann nicht gelesen werden.</numerusform>
            <numerusform>%n können nicht gelesen werden.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n directives are stored; the public device code executes none.</source>
        <translation>
            <numerusform>%n Direktive ist gespeichert; der öffentliche Gerätecode führt keine aus.</numerusform>
            <numerusform>%n Direktiven sind gespeichert; der öffentliche Gerätecode führt keine aus.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>(without id)</source>
        <translation>(ohne ID)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete {name}…</source>
        <translation>{name} löschen…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete…</source>
        <translation>Löschen…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Directive</source>
        <translation>Direktive</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Edit as new…</source>
        <translation>Als neue bearbeiten…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>No directive is stored.</source>
        <translation>Keine Direktive ist gespeichert.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Parameter</source>
        <translation>Parameter</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Stored directives</source>
        <translation>Gespeicherte Direktiven</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>damaged: {what}</source>
        <translation>beschädigt: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>only a part of it came</source>
        <translation>nur ein Teil davon kam an</translation>
    </message>
</context>
<context>
    <name>DonePage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Close</source>
        <translation>&amp;Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Go to {name}</source>
        <translation>&amp;Zu {name} gehen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Connect &amp;another</source>
        <translation>Weiteren &amp;verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Saved</source>
        <translation>Gespeichert</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Start its &amp;flow: commission {name}</source>
        <translation>&amp;Ablauf starten: {name} in Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>The connection opens by itself. What it says stands in the device list and under Log.</source>
        <translation>Die Verbindung öffnet sich von selbst. Was das Gerät meldet, steht in der Geräteliste und unter Log.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} are saved.</source>
        <translation>{names} sind gespeichert.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} is saved.</source>
        <translation>{names} ist gespeichert.</translation>
    </message>
</context>
<context>
    <name>ErrorPlot</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error over time; its last value stands above as text</source>
        <translation>Laufender Fehler über der Zeit; sein letzter Wert steht als Text darüber</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The running error is drawn here.</source>
        <translation>Hier wird der laufende Fehler gezeichnet.</translation>
    </message>
</context>
<context>
    <name>Event</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>abort</source>
        <translation>abgebrochen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>accepted</source>
        <translation>angenommen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>admit</source>
        <translation>zugelassen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>adopted</source>
        <translation>übernommen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>again</source>
        <translation>erneut</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>answered</source>
        <translation>beantwortet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>asked</source>
        <translation>angefordert</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>at the head-end</source>
        <translation>beim Head-End</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>defer</source>
        <translation>zurückgestellt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>done</source>
        <translation>erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>fail</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failure</source>
        <translation>abgelehnt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>found</source>
        <translation>gefunden</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>handed on</source>
        <translation>weitergereicht</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late</source>
        <translation>verspätet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late failure</source>
        <translation>verspäteter Fehlschlag</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late success</source>
        <translation>verspäteter Erfolg</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>lose sight</source>
        <translation>aus dem Blick verloren</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>matched</source>
        <translation>zugeordnet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>no token</source>
        <translation>kein Token</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not cancelled</source>
        <translation>nicht abgebrochen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>phase {phase} given up</source>
        <translation>Phase {phase} aufgegeben</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>picked</source>
        <translation>ausgewählt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>queued</source>
        <translation>in Warteschlange</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reached</source>
        <translation>angekommen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>read back</source>
        <translation>zurückgelesen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reading back</source>
        <translation>liest zurück</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>received</source>
        <translation>empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>refuse token</source>
        <translation>Token verweigert</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>report</source>
        <translation>gemeldet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry</source>
        <translation>neuer Versuch</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>said</source>
        <translation>gesagt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>saved</source>
        <translation>gespeichert</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>send</source>
        <translation>Senden</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>sent</source>
        <translation>gesendet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shared</source>
        <translation>geteilt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shown</source>
        <translation>angezeigt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>standing still</source>
        <translation>steht still</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>succeed</source>
        <translation>gelungen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>success</source>
        <translation>Erfolg</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>supersede</source>
        <translation>ersetzt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>suspend</source>
        <translation>angehalten</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token</source>
        <translation>Token</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token asked</source>
        <translation>Token angefordert</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>transmitted</source>
        <translation>übertragen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>Prüfung danach</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tried again</source>
        <translation>erneut versucht</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uncertain</source>
        <translation>ungewiss</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uninstall</source>
        <translation>außer Betrieb genommen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>unaufgefordert</translation>
    </message>
</context>
<context>
    <name>Exporter</name>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>A file is still being written: wait until it is done.</source>
        <translation>Eine Datei wird noch geschrieben: Warten Sie, bis sie fertig ist.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Nothing was written: set the cursors A and B first.</source>
        <translation>Nichts wurde geschrieben: Setzen Sie zuerst die Cursor A und B.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Print the chart</source>
        <translation>Diagramm drucken</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be printed: the printer {0} does not answer. Choose another one.</source>
        <translation>Das Diagramm konnte nicht gedruckt werden: Der Drucker {0} antwortet nicht. Wählen Sie einen anderen.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be written to {0}: {1}. Choose another folder.</source>
        <translation>Das Diagramm konnte nicht in {0} geschrieben werden: {1}. Wählen Sie einen anderen Ordner.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write a picture</source>
        <translation>Bild schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write the samples</source>
        <translation>Messwerte schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>the file cannot be opened</source>
        <translation>Die Datei kann nicht geöffnet werden</translation>
    </message>
</context>
<context>
    <name>FieldState</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>Firmware: {share} % of {size} bytes fetched.</source>
        <translation>Firmware: {share} % von {size} Bytes abgeholt.</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>dark</source>
        <translation>stromlos</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>lit</source>
        <translation>versorgt</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>offline</source>
        <translation>offline</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>online</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>stale</source>
        <translation>veraltet</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is dark: commands to its meters wait until it is lit for 5 minutes.</source>
        <translation>{name} ist stromlos: Befehle an seine Zähler warten, bis es 5 Minuten lang versorgt ist.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is lit. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} ist versorgt. Was darauf wartet, läuft nach 5 stabilen Minuten weiter.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is off: commands that need it wait until somebody says that it is online.</source>
        <translation>{name} ist aus: Befehle, die es brauchen, warten, bis jemand angibt, dass es online ist.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is online. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} ist online. Was darauf wartet, läuft nach 5 stabilen Minuten weiter.</translation>
    </message>
</context>
<context>
    <name>Flag</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock ran on its battery or reserve, so the time may be wrong.</source>
        <translation>Die Uhr lief mit Batterie oder Gangreserve, die Zeit kann also falsch sein.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock was set in this period: it is longer or shorter than the others.</source>
        <translation>Die Uhr wurde in dieser Periode gestellt: Sie ist länger oder kürzer als die anderen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The maxima were reset in this period: a billing period ended.</source>
        <translation>Die Maxima wurden in dieser Periode zurückgesetzt: Eine Abrechnungsperiode endete.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter itself says that this value is disturbed. Do not bill it.</source>
        <translation>Der Zähler selbst meldet diesen Wert als gestört. Rechnen Sie ihn nicht ab.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter reports a fatal error. Look at its error register F.F.</source>
        <translation>Der Zähler meldet einen schweren Fehler. Sehen Sie sein Fehlerregister F.F an.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply came back in this period.</source>
        <translation>Die Versorgung kehrte in dieser Periode zurück.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply failed in this period, so its value stands for a shorter time.</source>
        <translation>Die Versorgung fiel in dieser Periode aus, ihr Wert steht also für eine kürzere Zeit.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The time is summer time.</source>
        <translation>Die Zeit ist Sommerzeit.</translation>
    </message>
</context>
<context>
    <name>Flow</name>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>(from step {step}: {name})</source>
        <translation>(aus Schritt {step}: {name})</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>A person looks and answers.</source>
        <translation>Eine Person sieht nach und antwortet.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Commissions the meter by its six steps, and takes over how they end.</source>
        <translation>Nimmt den Zähler in sechs Schritten in Betrieb und übernimmt deren Ergebnis.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Failed after {span}. {text}</source>
        <translation>Fehlgeschlagen nach {span}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}.</source>
        <translation>Gibt den Befehl {command}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}: {given}.</source>
        <translation>Gibt den Befehl {command}: {given}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Judges what earlier steps read.</source>
        <translation>Bewertet, was frühere Schritte gelesen haben.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Passed in {span}: {text}</source>
        <translation>Bestanden in {span}: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, did not pass.</source>
        <translation>Schritt {number}, {step}, wurde nicht bestanden.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, has not begun: it waits for your word.</source>
        <translation>Schritt {number}, {step}, hat noch nicht begonnen: Er wartet auf Ihre Angabe.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, is under way. {why}</source>
        <translation>Schritt {number}, {step}, läuft. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, needs you: look and answer.</source>
        <translation>Schritt {number}, {step}, braucht Sie: Sehen Sie nach und antworten Sie.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Stopped after {span}. {text}</source>
        <translation>Abgebrochen nach {span}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>a text of the form {form}</source>
        <translation>ein Text der Form {form}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at least {low}</source>
        <translation>mindestens {low}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at most {high}</source>
        <translation>höchstens {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>from {low} to {high}</source>
        <translation>von {low} bis {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>met</source>
        <translation>erfüllt</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not begun</source>
        <translation>nicht begonnen</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not met</source>
        <translation>nicht erfüllt</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not run</source>
        <translation>nicht ausgeführt</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>nothing</source>
        <translation>nichts</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>now</source>
        <translation>jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>one of {values}</source>
        <translation>einer von {values}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>open</source>
        <translation>offen</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>passed</source>
        <translation>bestanden</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>paused</source>
        <translation>angehalten</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>recorded</source>
        <translation>festgehalten</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>skipped</source>
        <translation>übersprungen</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>something</source>
        <translation>irgendetwas</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>stopped</source>
        <translation>abgebrochen</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>under way</source>
        <translation>läuft</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>waits for you</source>
        <translation>wartet auf Sie</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>warning</source>
        <translation>Warnung</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>within {span} of {moment}</source>
        <translation>höchstens {span} von {moment} entfernt</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{done} of {all} steps</source>
        <translation>{done} von {all} Schritten</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{text} Step {number}, {step}, is next when it goes on.</source>
        <translation>{text} Beim Fortsetzen folgt Schritt {number}, {step}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{value} within {tolerance}</source>
        <translation>{value} mit Toleranz {tolerance}</translation>
    </message>
</context>
<context>
    <name>FlowCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be read: {why}.</source>
        <translation>{name} kann nicht gelesen werden: {why}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is no picture that can be shown. Choose a JPEG or PNG.</source>
        <translation>{name} ist kein darstellbares Bild. Wählen Sie ein JPEG oder PNG.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is {size} MiB; up to {most} MiB can be kept.</source>
        <translation>{name} hat {size} MiB; bis zu {most} MiB können aufbewahrt werden.</translation>
    </message>
</context>
<context>
    <name>FlowPanel</name>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>All its steps are done once more, from the first. It only reads.</source>
        <translation>Alle Schritte werden noch einmal ausgeführt, vom ersten an. Es wird nur gelesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Flow</source>
        <translation>Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No meter chosen.
Choose a meter or gateway in the tree on the left to run a flow.</source>
        <translation>Kein Zähler gewählt.
Wählen Sie links im Baum einen Zähler oder ein Gateway, um einen Ablauf auszuführen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No run is shown. Choose a device and one of its runs on the tab Flow first.</source>
        <translation>Kein Durchlauf wird gezeigt. Wählen Sie zuerst im Reiter Ablauf ein Gerät und einen seiner Durchläufe.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Nothing can be started from here: this is a recording, or a log opened for reading.</source>
        <translation>Von hier kann nichts gestartet werden: Dies ist eine Aufzeichnung oder ein zum Lesen geöffnetes Log.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Run “{flow}” on {name} again?</source>
        <translation>„{flow}“ an {name} erneut ausführen?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Start “{flow}” on {name}</source>
        <translation>„{flow}“ an {name} starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>These steps change the device:
{writes}
{warnings}</source>
        <translation>Diese Schritte ändern das Gerät:
{writes}
{warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} failed. {text}</source>
        <translation>{flow} an {name} fehlgeschlagen. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} passed.</source>
        <translation>{flow} an {name} bestanden.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} waits for you: {text}</source>
        <translation>{flow} an {name} wartet auf Sie: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} is in the flow {flow} (run {run}). Open it in the list of runs, or stop it first.</source>
        <translation>{name} ist im Ablauf {flow} (Durchlauf {run}). Öffnen Sie ihn in der Liste der Durchläufe oder brechen Sie ihn zuerst ab.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} only groups others.
Choose a meter or gateway below it to run a flow.</source>
        <translation>{name} gruppiert nur andere.
Wählen Sie einen Zähler oder ein Gateway darunter, um einen Ablauf auszuführen.</translation>
    </message>
</context>
<context>
    <name>FlowStatus</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>not begun</source>
        <translation>nicht begonnen</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>under way</source>
        <translation>läuft</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits</source>
        <translation>wartet</translation>
    </message>
</context>
<context>
    <name>FolderField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose the folder for exports</source>
        <translation>Ordner für Exporte wählen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose…</source>
        <translation>Auswählen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered first when a file is written for others. Empty: where the last one went</source>
        <translation>Wird zuerst angeboten, wenn eine Datei für andere geschrieben wird. Leer: wo die letzte hinkam</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>There is no such folder on this computer.</source>
        <translation>Diesen Ordner gibt es auf diesem Computer nicht.</translation>
    </message>
</context>
<context>
    <name>FollowDialog</name>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>&amp;Open the command</source>
        <translation>Befehl ö&amp;ffnen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>All &amp;links of the device</source>
        <translation>Alle &amp;Verbindungen des Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>As &amp;hex</source>
        <translation>Als &amp;Hex</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Bytes in their order</source>
        <translation>Bytes in ihrer Reihenfolge</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>Bytes rund um Vorgang {id} verfolgen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Reading…</source>
        <translation>Wird gelesen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show &amp;earlier ones</source>
        <translation>&amp;Frühere anzeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show l&amp;ater ones</source>
        <translation>&amp;Spätere anzeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>These are the newest.</source>
        <translation>Das sind die neuesten.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Times in {zone}.</source>
        <translation>Zeiten in {zone}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>bytes</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>cut off</source>
        <translation>abgeschnitten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>try</source>
        <translation>Versuch</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on all its links.</source>
        <translation>{n} Frames von {device} über alle seine Verbindungen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on {link}.</source>
        <translation>{n} Frames von {device} über {link}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>… {n} more bytes</source>
        <translation>… {n} weitere Bytes</translation>
    </message>
</context>
<context>
    <name>Habits</name>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>A write is under way</source>
        <translation>Ein Schreibvorgang läuft</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>If this workspace is closed now, its outcome may stay unknown. It stands in the log and is checked when the workspace is opened next.</source>
        <translation>Wird dieser Arbeitsbereich jetzt geschlossen, bleibt der Ausgang vielleicht unbekannt. Er steht im Log und wird beim nächsten Öffnen des Arbeitsbereichs geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} all the same</source>
        <translation>{name} trotzdem öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} now? A command that changes a meter is on its way.</source>
        <translation>{name} jetzt öffnen? Ein Befehl, der einen Zähler ändert, ist unterwegs.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Read a site file</source>
        <translation>Standortdatei einlesen</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Stay here</source>
        <translation>Hier bleiben</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Take it off the list</source>
        <translation>Aus der Liste nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>The log folder is {folder}. No program of this computer opens folders from here.</source>
        <translation>Der Log-Ordner ist {folder}. Kein Programm dieses Computers öffnet von hier aus Ordner.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} is a table that is neither a log nor a site file; nothing here can be done with it.</source>
        <translation>{name} ist eine Tabelle, aber weder ein Log noch eine Standortdatei; damit kann hier nichts getan werden.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} looks like a batch. Open the workspace in which it is to be carried out, then try again.</source>
        <translation>{name} sieht wie ein Stapel aus. Öffnen Sie den Arbeitsbereich, in dem er ausgeführt werden soll, und versuchen Sie es erneut.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{path} is not there any more: it was moved, or its disk is not connected.</source>
        <translation>{path} ist nicht mehr da: verschoben, oder der Datenträger ist nicht verbunden.</translation>
    </message>
</context>
<context>
    <name>Heard</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>heard</source>
        <translation>gehört</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard just now</source>
        <translation>gerade eben gehört</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard {age} ago</source>
        <translation>vor {age} gehört</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>just now</source>
        <translation>gerade eben</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>never heard</source>
        <translation>nie gehört</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>silent</source>
        <translation>still</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>silent {age}</source>
        <translation>still seit {age}</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{age} ago</source>
        <translation>vor {age}</translation>
    </message>
</context>
<context>
    <name>HexView</name>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Bytes</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as hexadecimal</source>
        <translation>Als Hexadezimal kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as text</source>
        <translation>Als Text kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Select all</source>
        <translation>Alles auswählen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>byte {offset}: 0x{value:02x} = {value}</source>
        <translation>Byte {offset}: 0x{value:02x} = {value}</translation>
    </message>
</context>
<context>
    <name>Issue</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no communication</source>
        <translation>keine Kommunikation</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no credit</source>
        <translation>kein Guthaben</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected meter status</source>
        <translation>unerwarteter Zählerstatus</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected power limit</source>
        <translation>unerwartete Leistungsgrenze</translation>
    </message>
</context>
<context>
    <name>KindsPage</name>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>&amp;Go on</source>
        <translation>&amp;Weiter</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Choose what is in front of you.</source>
        <translation>Wählen Sie, was vor Ihnen liegt.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Nothing is called {text}. Clear the search, or enter the connection by hand.</source>
        <translation>Nichts heißt {text}. Leeren Sie die Suche, oder geben Sie die Verbindung von Hand ein.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Search for a meter, gateway or service</source>
        <translation>Nach Zähler, Gateway oder Dienst suchen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Type a name: meter, LEM, gateway, ChirpStack...</source>
        <translation>Geben Sie einen Namen ein: meter, LEM, gateway, ChirpStack...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you</source>
        <translation>Was vor Ihnen liegt</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you?</source>
        <translation>Was liegt vor Ihnen?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What it needs is not installed on this computer.</source>
        <translation>Was dafür nötig ist, ist auf diesem Computer nicht installiert.</translation>
    </message>
</context>
<context>
    <name>Lab</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>{what} of {device}</source>
        <translation>{what} von {device}</translation>
    </message>
</context>
<context>
    <name>LabRecords</name>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>A derived quantity of this workspace cannot be read: {why}</source>
        <translation>Eine abgeleitete Größe dieses Arbeitsbereichs kann nicht gelesen werden: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The notes of this workspace cannot be read: {why}</source>
        <translation>Die Notizen dieses Arbeitsbereichs können nicht gelesen werden: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The recordings of this workspace cannot be read: {why}</source>
        <translation>Die Aufzeichnungen dieses Arbeitsbereichs können nicht gelesen werden: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} derived quantities, which is the most: remove one that is no longer needed.</source>
        <translation>Es gibt {n} abgeleitete Größen, mehr sind nicht möglich: Entfernen Sie eine, die nicht mehr gebraucht wird.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} thresholds, which is the most: remove one that is no longer needed.</source>
        <translation>Es gibt {n} Schwellwerte, mehr sind nicht möglich: Entfernen Sie einen, der nicht mehr gebraucht wird.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There is such a threshold already: {name}.</source>
        <translation>Einen solchen Schwellwert gibt es bereits: {name}.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>This is not kept. {why}</source>
        <translation>Dies wird nicht gespeichert. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} added</source>
        <translation>Notiz {name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} changed</source>
        <translation>Notiz {name} geändert</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} removed</source>
        <translation>Notiz {name} entfernt</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} added</source>
        <translation>Größe {name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} changed</source>
        <translation>Größe {name} geändert</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} removed</source>
        <translation>Größe {name} entfernt</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} added</source>
        <translation>Schwellwert {name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} changed</source>
        <translation>Schwellwert {name} geändert</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} removed</source>
        <translation>Schwellwert {name} entfernt</translation>
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
        <translation>Abgeleitete Größen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit the derived quantity {name}</source>
        <translation>Abgeleitete Größe {name} bearbeiten</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit…</source>
        <translation>Bearbeiten…</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Export {name}</source>
        <translation>{name} exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Notes</source>
        <translation>Notizen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>On this chart</source>
        <translation>In diesem Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Parquet (*.parquet)</source>
        <translation>Parquet (*.parquet)</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>References</source>
        <translation>Referenzen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove the derived quantity {name}</source>
        <translation>Abgeleitete Größe {name} entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove {curve} of {source}</source>
        <translation>{curve} von {source} entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Thresholds</source>
        <translation>Schwellwerte</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>derived</source>
        <translation>abgeleitet</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name} on this chart, or off it</source>
        <translation>{name} in diesem Diagramm zeigen oder nicht</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name}: {n} curves were written to {path}.</source>
        <translation>
            <numerusform>{name}: {n} Kurve wurde in {path} geschrieben.</numerusform>
            <numerusform>{name}: {n} Kurven wurden in {path} geschrieben.</numerusform>
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
        <translation>Alter</translation>
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
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Energy, charge</source>
        <translation>Energie, Ladung</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Max</source>
        <translation>Max</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Mean</source>
        <translation>Mittel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Now</source>
        <translation>Jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Quantity</source>
        <translation>Größe</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>RMS</source>
        <translation>RMS</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Samples/s</source>
        <translation>Messwerte/s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per h</source>
        <translation>Steigung pro h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per s</source>
        <translation>Steigung pro s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Std dev</source>
        <translation>Std-Abw</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Unit</source>
        <translation>Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: above {2} {1}</source>
        <translation>{0} {1}: über {2} {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: below {2} {1}</source>
        <translation>{0} {1}: unter {2} {1}</translation>
    </message>
</context>
<context>
    <name>LinkState</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>connecting</source>
        <translation>verbindet</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>Störung</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>off</source>
        <translation>aus</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>online</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replay</source>
        <translation>Wiedergabe</translation>
    </message>
</context>
<context>
    <name>LiveChart</name>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>All that is loaded</source>
        <translation>Alles Geladene</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pictures.py"/>
        <source>Chart</source>
        <translation>Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Clear the chart</source>
        <translation>Diagramm leeren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Columns</source>
        <translation>Spalten</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Copy the picture</source>
        <translation>Bild kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor A here</source>
        <translation>Cursor A hierher</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor B here</source>
        <translation>Cursor B hierher</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/labels.py"/>
        <source>Drag a quantity here from the device tree,
or double-click one there to chart it.</source>
        <translation>Ziehen Sie eine Größe aus dem Gerätebaum hierher,
oder doppelklicken Sie dort darauf, um sie darzustellen.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Export</source>
        <translation>Exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Fit</source>
        <translation>Einpassen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>From A to B</source>
        <translation>Von A bis B</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>In {0}…</source>
        <translation>In {0}…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Live chart</source>
        <translation>Live-Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>No cursors</source>
        <translation>Keine Cursor</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note here…</source>
        <translation>Notiz hier…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note…</source>
        <translation>Notiz…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Open a note</source>
        <translation>Notiz öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as PNG…</source>
        <translation>Bild als PNG…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as SVG…</source>
        <translation>Bild als SVG…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Plot area</source>
        <translation>Zeichenfläche</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Print…</source>
        <translation>Drucken…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put back with its unit</source>
        <translation>Zurück zu ihrer Einheit legen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put on an axis of its own</source>
        <translation>Auf eigene Achse legen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put with {0}</source>
        <translation>Zu {0} legen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Messwerte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as CSV…</source>
        <translation>Messwerte als CSV…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as Parquet…</source>
        <translation>Messwerte als Parquet…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Space holds the picture, the arrows move it, plus and minus zoom, F fits. A and B place the cursors, with Shift and Alt the arrows move them. N writes a note. The samples are in the table below.</source>
        <translation>Die Leertaste hält das Bild an, die Pfeile bewegen es, Plus und Minus zoomen, F passt ein. A und B setzen die Cursor, mit Umschalt und Alt bewegen die Pfeile sie. N schreibt eine Notiz. Die Messwerte stehen in der Tabelle darunter.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Statistics</source>
        <translation>Statistik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Take off the chart</source>
        <translation>Aus dem Diagramm nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>The chart has {0} curves, which is the most: take one off, or add a chart for {1}.</source>
        <translation>Das Diagramm hat {0} Kurven, mehr sind nicht möglich: Nehmen Sie eine heraus, oder fügen Sie ein Diagramm für {1} hinzu.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>The visible range</source>
        <translation>Der sichtbare Bereich</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold</source>
        <translation>Schwellwert</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold here…</source>
        <translation>Schwellwert hier…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pointer.py"/>
        <source>and {0} more in the list below</source>
        <translation>und {0} weitere in der Liste unten</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>clock of {0}, {1}, {2}</source>
        <translation>Uhr von {0}, {1}, {2}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>no unit</source>
        <translation>keine Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>reference</source>
        <translation>Referenz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, no meter has told its own, {0}, {1}</source>
        <translation>Zeit dieses Computers, kein Zähler hat seine eigene gemeldet, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, {0}, {1}</source>
        <translation>Zeit dieses Computers, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time since the first sample</source>
        <translation>Zeit seit dem ersten Messwert</translation>
    </message>
</context>
<context>
    <name>LogColours</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Amber, triangle</source>
        <translation>Bernstein, Dreieck</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Blue, filled circle</source>
        <translation>Blau, gefüllter Kreis</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Cyan, hollow diamond</source>
        <translation>Cyan, hohle Raute</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Green, filled diamond</source>
        <translation>Grün, gefüllte Raute</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Red, octagon</source>
        <translation>Rot, Achteck</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Violet, half diamond</source>
        <translation>Violett, halbe Raute</translation>
    </message>
</context>
<context>
    <name>LogPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>%n new below</source>
        <translation>
            <numerusform>%n neue darunter</numerusform>
            <numerusform>%n neue darunter</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply also: {term}</source>
        <translation>Zusätzlich anwenden: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply as filter: {term}</source>
        <translation>Als Filter anwenden: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Compare interaction {id} with another…</source>
        <translation>Vorgang {id} mit einem anderen vergleichen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy cell</source>
        <translation>Zelle kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy row</source>
        <translation>Zeile kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Exclude: {term}</source>
        <translation>Ausschließen: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export what the filter shows</source>
        <translation>Exportieren, was der Filter zeigt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export…</source>
        <translation>Exportieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter</source>
        <translation>Filter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter, for example  status:failed device:lem-1</source>
        <translation>Filter, zum Beispiel  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filters used before</source>
        <translation>Früher verwendete Filter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow</source>
        <translation>Folgen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>Bytes rund um Vorgang {id} verfolgen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Interactions</source>
        <translation>Vorgänge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Log</source>
        <translation>Log</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log</source>
        <translation>Das Log wird durchgesehen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log…</source>
        <translation>Das Log wird durchgesehen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>No filter used yet</source>
        <translation>Noch kein Filter verwendet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Nothing in the log matches this filter.
Press Esc in the filter line to see everything.</source>
        <translation>Nichts im Log passt zu diesem Filter.
Drücken Sie in der Filterzeile Esc, um alles zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Read the log again</source>
        <translation>Log neu lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Recent</source>
        <translation>Zuletzt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Rows shown</source>
        <translation>Gezeigte Zeilen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Show interaction {id}</source>
        <translation>Vorgang {id} zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stay at the newest row</source>
        <translation>Bei der neuesten Zeile bleiben</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stop looking</source>
        <translation>Suche abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stopped. Only the newest rows are shown; apply the filter again to see all.</source>
        <translation>Abgebrochen. Nur die neuesten Zeilen werden gezeigt; wenden Sie den Filter erneut an, um alle zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>The log is empty.
Connect a meter and send a command, or open a log that somebody sent you.</source>
        <translation>Das Log ist leer.
Verbinden Sie einen Zähler und senden Sie einen Befehl, oder öffnen Sie ein zugesandtes Log.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>counting…</source>
        <translation>wird gezählt…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>{rows} rows</source>
        <translation>
            <numerusform>{rows} Zeile</numerusform>
            <numerusform>{rows} Zeilen</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>LogTableModel</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Coloured by the rule {name}</source>
        <translation>Gefärbt durch die Regel {name}</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Duration</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Id</source>
        <translation>ID</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Origin</source>
        <translation>Herkunft</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Reason</source>
        <translation>Grund</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Status</source>
        <translation>Status</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Time ({zone})</source>
        <translation>Zeit ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Tries</source>
        <translation>Versuche</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>A write is under way</source>
        <translation>Ein Schreibvorgang läuft</translation>
    </message>
    <message>
        <source>Accuracy</source>
        <translation type="vanished">Genauigkeit</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Arm for {n} min</source>
        <translation>Für {n} min freigeben</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation type="vanished">Stapel</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Command</source>
        <translation>Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Commands that wait for it are given up. Its log stays, and this can be undone.</source>
        <translation>Befehle, die darauf warten, werden aufgegeben. Das Log bleibt, und dies lässt sich rückgängig machen.</translation>
    </message>
    <message>
        <source>Commissioning</source>
        <translation type="vanished">Inbetriebnahme</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation type="vanished">Vergleich</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Devices</source>
        <translation>Geräte</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>End the &amp;recording: {name}</source>
        <translation>&amp;Aufzeichnung beenden: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Export the log</source>
        <translation>Log exportieren</translation>
    </message>
    <message>
        <source>Flow</source>
        <translation type="vanished">Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>From now on {name} is reached this way: {way}.</source>
        <translation>{name} wird ab jetzt auf diesem Weg erreicht: {way}.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Go on reading</source>
        <translation>Weiterlesen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>If you leave now, its outcome may stay unknown. It stands in the log and is checked at the next start.</source>
        <translation>Wenn Sie jetzt beenden, bleibt der Ausgang vielleicht unbekannt. Er steht im Log und wird beim nächsten Start geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Interaction</source>
        <translation>Vorgang</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Leave all the same</source>
        <translation>Trotzdem beenden</translation>
    </message>
    <message>
        <source>Live</source>
        <translation type="vanished">Live</translation>
    </message>
    <message>
        <source>Log</source>
        <translation type="vanished">Log</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Log open for reading</source>
        <translation>Log zum Lesen geöffnet</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Looking through {name}…</source>
        <translation>{name} wird durchgesehen…</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>New workspace</source>
        <translation>Neuer Arbeitsbereich</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Nothing can be sent from here: this is a recording. Open its workspace to send.</source>
        <translation>Von hier kann nichts gesendet werden: Dies ist eine Aufzeichnung. Öffnen Sie zum Senden ihren Arbeitsbereich.</translation>
    </message>
    <message>
        <source>Objects</source>
        <translation type="vanished">Objekte</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Only reading again: {n} minutes are over. What was sent goes on.</source>
        <translation>Wieder nur Lesen: {n} Minuten sind um. Gesendetes läuft weiter.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a log for reading</source>
        <translation>Log zum Lesen öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a workspace</source>
        <translation>Arbeitsbereich öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open it for reading</source>
        <translation>Zum Lesen öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open {name} to work with it, and not only to read it?</source>
        <translation>{name} öffnen, um damit zu arbeiten und nicht nur zu lesen?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>REPLAY of {name}</source>
        <translation>WIEDERGABE von {name}</translation>
    </message>
    <message>
        <source>Readings</source>
        <translation type="vanished">Auslesungen</translation>
    </message>
    <message>
        <source>Recordings</source>
        <translation type="vanished">Aufzeichnungen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name}</source>
        <translation>{name} entfernen</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} and the {n} devices below it from this workspace?</source>
        <translation>
            <numerusform>{name} und das {n} Gerät darunter aus diesem Arbeitsbereich entfernen?</numerusform>
            <numerusform>{name} und die {n} Geräte darunter aus diesem Arbeitsbereich entfernen?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} from this workspace?</source>
        <translation>{name} aus diesem Arbeitsbereich entfernen?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay</source>
        <translation>Wiedergabe</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay a log</source>
        <translation>Log wiedergeben</translation>
    </message>
    <message>
        <source>Signed records</source>
        <translation type="vanished">Signierte Datensätze</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Stay</source>
        <translation>Bleiben</translation>
    </message>
    <message>
        <source>System</source>
        <translation type="vanished">System</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The links of its devices are opened, and what happens from now on is written to it.</source>
        <translation>Die Verbindungen seiner Geräte werden geöffnet, und was ab jetzt geschieht, wird hineingeschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The way {way} to {name} is forgotten.</source>
        <translation>Der Weg {way} zu {name} ist vergessen.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This is a replay: no meter is connected, so nothing can be sent. To send, open a workspace.</source>
        <translation>Dies ist eine Wiedergabe: Es ist kein Zähler verbunden, also kann nichts gesendet werden. Öffnen Sie zum Senden einen Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This log is open for reading. Nothing can be sent to a meter.</source>
        <translation>Dieses Log ist zum Lesen geöffnet. An einen Zähler kann nichts gesendet werden.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Tool bar</source>
        <translation>Werkzeugleiste</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undo</source>
        <translation>Rückgängig</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undone: {what}</source>
        <translation>Rückgängig gemacht: {what}</translation>
    </message>
    <message>
        <source>Views</source>
        <translation type="vanished">Ansichten</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Welcome</source>
        <translation>Willkommen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Work with {name}</source>
        <translation>Mit {name} arbeiten</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>another way to {name}: {way}</source>
        <translation>weiterer Weg zu {name}: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} added</source>
        <translation>Weg {way} zu {name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} forgotten</source>
        <translation>Weg {way} zu {name} vergessen</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{command} on {device} is on its way.</source>
        <translation>{command} an {device} ist unterwegs.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} (read only)</source>
        <translation>{name} (nur lesen)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} - Meterwright</source>
        <translation>{name} - Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} added</source>
        <translation>{name} hinzugefügt</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} can also be reached this way now: {way}. Device &gt; Reach it switches to it.</source>
        <translation>{name} ist jetzt auch auf diesem Weg erreichbar: {way}. Gerät &gt; Erreichen über wechselt dorthin.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} changed</source>
        <translation>{name} geändert</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} has no read command that needs no parameter.</source>
        <translation>{name} hat keinen Lesebefehl ohne Parameter.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} removed</source>
        <translation>{name} entfernt</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{n} commands that change a meter are on their way.</source>
        <translation>{n} Befehle, die einen Zähler ändern, sind unterwegs.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>{n} of its commands are not finished; those that wait may be sent.</source>
        <translation>
            <numerusform>{n} seiner Befehle ist nicht abgeschlossen; wartet er, kann er gesendet werden.</numerusform>
            <numerusform>{n} seiner Befehle sind nicht abgeschlossen; die wartenden können gesendet werden.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{path} was written.</source>
        <translation>{path} wurde geschrieben.</translation>
    </message>
</context>
<context>
    <name>Model</name>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1 is the last, -2 the one before it; 0 and up are places in the meter&apos;s memory.</source>
        <translation>-1 ist der letzte, -2 der davor; ab 0 sind es Plätze im Speicher des Zählers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1: leave the meter alone. The manufacturer asks that this be set once in the meter&apos;s life.</source>
        <translation>-1: Zähler unverändert lassen. Der Hersteller bittet, dies nur einmal im Leben des Zählers zu setzen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 to 31; 10 is -93 dBm. A module that knows none says 99.</source>
        <translation>0 bis 31; 10 sind -93 dBm. Ein Modul, das keine kennt, meldet 99.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 where no source is connected.</source>
        <translation>0, wo keine Quelle angeschlossen ist.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: any free one.</source>
        <translation>0: irgendein freier.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0: as long as an answer is waited for; a server waits 10 s at least.</source>
        <translation>0: so lange, wie auf eine Antwort gewartet wird; ein Server wartet mindestens 10 s.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>0: every two minutes with a webhook; without one faster at first, later every half minute.</source>
        <translation>0: alle zwei Minuten mit Webhook; ohne Webhook anfangs schneller, später jede halbe Minute.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>0: no limit.</source>
        <translation>0: keine Grenze.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>0: no webhook; events then come over MQTT.</source>
        <translation>0: kein Webhook; Ereignisse kommen dann über MQTT.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: the one it tells, else 2622.</source>
        <translation>0: der genannte, sonst 2622.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0x8005 over channel 22.</source>
        <translation>0x8005 über Kanal 22.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the logical name, 2 mostly the value.</source>
        <translation>1 ist der logische Name, 2 meist der Wert.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the management logical device.</source>
        <translation>1 ist das logische Management-Gerät.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 octet</source>
        <translation>1 Byte</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>1 to 37 bytes. Empty: the running one, else the last.</source>
        <translation>1 bis 37 Bytes. Leer: die laufende, sonst die letzte.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>1 to 37 bytes; letters, digits and - . _ ~ are safe.</source>
        <translation>1 bis 37 Bytes; Buchstaben, Ziffern und - . _ ~ sind sicher.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>127.0.0.1 is this computer only; choose an address of the device&apos;s network.</source>
        <translation>127.0.0.1 ist nur dieser Computer; wählen Sie eine Adresse aus dem Netzwerk des Geräts.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 % are allowed either way.</source>
        <translation>15 % sind in beide Richtungen erlaubt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 digits. Empty: it is shown and not judged.</source>
        <translation>15 Ziffern. Leer: Sie wird gezeigt und nicht bewertet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 is the public client.</source>
        <translation>16 ist der öffentliche Client.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 octets in hex</source>
        <translation>16 Bytes in Hex</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>2 octets</source>
        <translation>2 Bytes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>2000 to 2099; two digits mean 20xx.</source>
        <translation>2000 bis 2099; zwei Ziffern bedeuten 20xx.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>3 is a register, 1 data, 7 a profile, 8 the clock.</source>
        <translation>3 ist ein Register, 1 Daten, 7 ein Profil, 8 die Uhr.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>300 on the head; mostly 9600 on RS-485 and TCP.</source>
        <translation>300 am Optokopf; meist 9600 bei RS-485 und TCP.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits, given to meters that are registered from here.</source>
        <translation>32 Hexziffern, erhalten Zähler, die von hier registriert werden.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits; empty: the one of the connection.</source>
        <translation>32 Hexziffern; leer: der der Verbindung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>4 octets</source>
        <translation>4 Bytes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>400 A for a DCBM 400, 600 A for a DCBM 600.</source>
        <translation>400 A für einen DCBM 400, 600 A für einen DCBM 600.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>5000 switches the warning off in practice.</source>
        <translation>5000 schaltet die Warnung praktisch aus.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>7E1 by software</source>
        <translation>7E1 durch Software</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>8 octets in hex. Only sent where ciphering or the authentication needs it.</source>
        <translation>8 Bytes in Hex. Wird nur gesendet, wo Verschlüsselung oder Authentifizierung ihn brauchen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>80 also with TLS: switching TLS on does not move the port.</source>
        <translation>80 auch mit TLS: Das Einschalten von TLS ändert den Port nicht.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is connected with CONNECT_SUPPLY.</source>
        <translation>Ein DLMS-Zähler wird mit CONNECT_SUPPLY zugeschaltet.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is disconnected with DISCONNECT_SUPPLY.</source>
        <translation>Ein DLMS-Zähler wird mit DISCONNECT_SUPPLY abgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>A battery storage that dials in to this computer.</source>
        <translation>Ein Batteriespeicher, der sich bei diesem Computer einwählt.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>A dashboard of the reference head-end only listens. Where yours relays commands, switch on The head-end relays commands in the connection.</source>
        <translation>Ein Dashboard des Referenz-Head-Ends lauscht nur. Leitet Ihres Befehle weiter, schalten Sie in der Verbindung Das Head-End leitet Befehle weiter ein.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A device is online once its token was right and a packet fitted the schema. A device that is in ERROR is inspected first; then send Reset error by hand and do the step again.</source>
        <translation>Ein Gerät ist online, sobald sein Token richtig war und ein Paket zum Schema passte. Ein Gerät in ERROR wird zuerst untersucht; senden Sie dann Fehler zurücksetzen von Hand und wiederholen Sie den Schritt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A few days at most: the text comes in one piece.</source>
        <translation>Höchstens einige Tage: Der Text kommt in einem Stück.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A gateway that was accepted once stays registered for ever.</source>
        <translation>Ein einmal angenommenes Gateway bleibt für immer registriert.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A head-end answers what is sent</source>
        <translation>Ein Head-End antwortet auf Gesendetes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>A longer payload is sent in several frames.</source>
        <translation>Längere Nutzdaten werden in mehreren Frames gesendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>A lower one helps a bad head or a long line.</source>
        <translation>Eine niedrigere hilft bei einem schlechten Optokopf oder einer langen Leitung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A meter of three phases is asked phase by phase.</source>
        <translation>Ein Drehstromzähler wird Phase für Phase abgefragt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A new one each time, such as the job number: up to 20 letters, digits and - . _ ~</source>
        <translation>Jedes Mal eine neue, etwa die Auftragsnummer: bis zu 20 Buchstaben, Ziffern und - . _ ~</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A page to read and print (*.html)</source>
        <translation>Eine Seite zum Lesen und Drucken (*.html)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A readout through the gateway: identity, energy, voltage, phase sequence and clock. Nothing is changed.</source>
        <translation>Eine Auslesung durch das Gateway: Identität, Energie, Spannung, Drehfeld und Uhr. Nichts wird geändert.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>A rule as JSON with activated, offset, start and end; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>Eine Regel als JSON mit activated, offset, start und end; leer: Die eigene Einstellung des Zählers bleibt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>A serial port, or socket://HOST:4059 for a meter on the network.</source>
        <translation>Eine serielle Schnittstelle oder socket://HOST:4059 für einen Zähler im Netzwerk.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. A run that fails or is stopped before ends it at once.</source>
        <translation>Jetzt beginnt eine signierte Transaktion. Sie läuft zwei Minuten, weil kürzere den Speicher des Zählers verschleißen, und wird dann vom Ablauf beendet. Ein Durchlauf, der vorher scheitert oder abgebrochen wird, beendet sie sofort.</translation>
    </message>
    <message>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. Do not stop the run before that.</source>
        <translation type="vanished">Jetzt beginnt eine signierte Transaktion. Sie läuft zwei Minuten, weil kürzere den Speicher des Zählers verschleißen, und wird dann vom Ablauf beendet. Brechen Sie den Durchlauf nicht vorher ab.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>A signed transaction begins. Ones shorter than two minutes wear the meter&apos;s memory.</source>
        <translation>Eine signierte Transaktion beginnt. Kürzere als zwei Minuten verschleißen den Speicher des Zählers.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A smaller workspace (*.mwk)</source>
        <translation>Ein kleinerer Arbeitsbereich (*.mwk)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A table of the interactions (*.csv)</source>
        <translation>Eine Tabelle der Vorgänge (*.csv)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text goes to the head-end; something has to come back.</source>
        <translation>Ein Text geht an das Head-End; etwas muss zurückkommen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text of this program goes to the head-end over the mobile network.</source>
        <translation>Ein Text dieses Programms geht über das Mobilfunknetz an das Head-End.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A token holds steps of 0.1 kWh.</source>
        <translation>Ein Token enthält Schritte von 0,1 kWh.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A transaction is running</source>
        <translation>Eine Transaktion läuft</translation>
    </message>
    <message>
        <source>A value out of bounds is a warning here, so that the transaction is ended in any case.</source>
        <translation type="vanished">Ein Wert außerhalb der Grenzen ist hier eine Warnung, damit die Transaktion in jedem Fall beendet wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A vehicle or load draws current during the test</source>
        <translation>Ein Fahrzeug oder eine Last zieht während des Tests Strom</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>ACCM</source>
        <translation>ACCM</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>API token</source>
        <translation>API-Token</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>APN</source>
        <translation>APN</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>APN password</source>
        <translation>APN-Passwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Accept its registration</source>
        <translation>Registrierung annehmen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point</source>
        <translation>Zugangspunkt</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point (APN)</source>
        <translation>Zugangspunkt (APN)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point as the SIM card needs it</source>
        <translation>Zugangspunkt, wie die SIM-Karte ihn braucht</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Acknowledge events</source>
        <translation>Ereignisse bestätigen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Acknowledged in the form</source>
        <translation>Bestätigt in der Form</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Add directive</source>
        <translation>Direktive speichern</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add meter</source>
        <translation>Zähler hinzufügen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Add the meter</source>
        <translation>Zähler hinzufügen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add to {device}</source>
        <translation>Zu {device} hinzufügen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Added behind the line, for AT+MPWD=; it is never shown.</source>
        <translation>Hinter der Zeile angehängt, für AT+MPWD=; es wird nie gezeigt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address</source>
        <translation>Adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Address length</source>
        <translation>Adresslänge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of ChirpStack&apos;s REST interface, for example http://127.0.0.1:8090, or of ChirpStack itself, for example grpc://127.0.0.1:8080 or grpcs:// with TLS (needs the extra chirpstack).</source>
        <translation>Adresse der REST-Schnittstelle von ChirpStack, zum Beispiel http://127.0.0.1:8090, oder von ChirpStack selbst, zum Beispiel grpc://127.0.0.1:8080 oder grpcs:// mit TLS (braucht das Extra chirpstack).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of the device-messaging service, for example http://127.0.0.1:3100.</source>
        <translation>Adresse des Dienstes für Gerätenachrichten, zum Beispiel http://127.0.0.1:3100.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the gateway</source>
        <translation>Adresse des Gateways</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Address of the head-end</source>
        <translation>Adresse des Head-Ends</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the image</source>
        <translation>Adresse des Images</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of the service that makes tokens; empty: none are made here.</source>
        <translation>Adresse des Dienstes, der Token erzeugt; leer: Hier werden keine erzeugt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Address of the vendor&apos;s service, http(s)://host[:port][/path].</source>
        <translation>Adresse des Herstellerdienstes, http(s)://host[:port][/path].</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of this computer for the server&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Adresse dieses Computers für die Ereignisse des Servers; 127.0.0.1: nur von hier.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of this computer for the service&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Adresse dieses Computers für die Ereignisse des Dienstes; 127.0.0.1: nur von hier.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of this computer that gateways dial; 127.0.0.1: only from here. The link is in clear text and has no login.</source>
        <translation>Adresse dieses Computers, die Gateways anwählen; 127.0.0.1: nur von hier. Die Verbindung ist im Klartext und ohne Anmeldung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Address of this computer that modules connect to; 127.0.0.1: only from here, 0.0.0.0: from everywhere. The link is in clear text and has no login.</source>
        <translation>Adresse dieses Computers, zu der sich Module verbinden; 127.0.0.1: nur von hier, 0.0.0.0: von überall. Die Verbindung ist im Klartext und ohne Anmeldung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address or name. When it is filled in, the meter keeps time by NTP instead of by this computer&apos;s clock.</source>
        <translation>Adresse oder Name. Ist er ausgefüllt, stellt sich der Zähler per NTP statt nach der Uhr dieses Computers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>After a time-out no other meter job is sent to the gateway for so long.</source>
        <translation>Nach einer Zeitüberschreitung wird so lange kein anderer Zählerauftrag an das Gateway gesendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>After that it is given up unsent.</source>
        <translation>Danach wird er ungesendet aufgegeben.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Algorithm</source>
        <translation>Algorithmus</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>All three parts name their version; the authentication tags stand in the report.</source>
        <translation>Alle drei Teile nennen ihre Version; die Authentifizierungsmarken stehen im Bericht.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L2) to U(L1)</source>
        <translation>Winkel U(L2) zu U(L1)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L3) to U(L1)</source>
        <translation>Winkel U(L3) zu U(L1)</translation>
    </message>
    <message>
        <location filename="../../app/pipeline/flow_runs.py"/>
        <source>Answer</source>
        <translation>Antwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer AT lines</source>
        <translation>AT-Zeilen beantworten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer for 0x2803.</source>
        <translation>Antwort für 0x2803.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer from the table</source>
        <translation>Aus der Tabelle antworten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer to transparent payload</source>
        <translation>Antwort auf transparente Nutzdaten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer with an error</source>
        <translation>Mit Fehler antworten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Answer within</source>
        <translation>Antwort innerhalb von</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answers</source>
        <translation>Antworten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Answers once more</source>
        <translation>Antwortet noch einmal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application</source>
        <translation>Anwendung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Application firmware</source>
        <translation>Anwendungsfirmware</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application key</source>
        <translation>Anwendungsschlüssel</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>April</source>
        <translation>April</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As address(value).</source>
        <translation>Als Adresse(Wert).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>As devices enter them, separated by commas; empty: the listening address.</source>
        <translation>Wie Geräte sie eingeben, durch Kommas getrennt; leer: die Lausch-Adresse.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As it will stand in the signed records, for example DE*ABC*E1. Empty: none.</source>
        <translation>Wie sie in den signierten Datensätzen steht, zum Beispiel DE*ABC*E1. Leer: keine.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As on the meter, up to 15 characters. Empty: no meter is added.</source>
        <translation>Wie auf dem Zähler, bis zu 15 Zeichen. Leer: Es wird kein Zähler hinzugefügt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As the SIM card needs it. Empty: it is shown and not judged.</source>
        <translation>Wie die SIM-Karte ihn braucht. Leer: Er wird gezeigt und nicht bewertet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the dialect does</source>
        <translation>Wie der Dialekt es tut</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter names it, for example 1.8.0.</source>
        <translation>Wie der Zähler es nennt, zum Beispiel 1.8.0.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter writes it, unit included.</source>
        <translation>Wie der Zähler es schreibt, mit Einheit.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the module: TCP payload in frames</source>
        <translation>Als Modul: TCP-Nutzdaten in Frames</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the profile says</source>
        <translation>Wie das Profil vorgibt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As usual: Turkish meters are read without, others with.</source>
        <translation>Wie üblich: Türkische Zähler werden ohne gelesen, andere mit.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Ask the meter who it is, and end.</source>
        <translation>Den Zähler fragen, wer er ist, und beenden.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ask to stop from</source>
        <translation>Stopp verlangen ab</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Ask who is there</source>
        <translation>Fragen, wer da ist</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>At</source>
        <translation>AT-Zeile senden</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Attempts</source>
        <translation>Versuche</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Attribute</source>
        <translation>Attribut</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>August</source>
        <translation>August</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication</source>
        <translation>Authentifizierung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication key</source>
        <translation>Authentifizierungsschlüssel</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the application firmware</source>
        <translation>Authentifizierungsmarke der Anwendungsfirmware</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the legal firmware</source>
        <translation>Authentifizierungsmarke der eichrechtlichen Firmware</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Aviora gateway</source>
        <translation>Aviora-Gateway</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Aviora gateway (ProtocolZD)</source>
        <translation>Aviora-Gateway (ProtocolZD)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>B1: battery meter</source>
        <translation>B1: Batteriezähler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Back to AUTO</source>
        <translation>Zurück zu AUTO</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery capacity</source>
        <translation>Batteriekapazität</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery charge power</source>
        <translation>Batterieladeleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery current</source>
        <translation>Batteriestrom</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery discharge power</source>
        <translation>Batterieentladeleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery power</source>
        <translation>Batterieleistung</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Battery systems that report once a second: they dial in here, or are watched through their head-end.</source>
        <translation>Batteriesysteme, die sich einmal pro Sekunde melden: Sie wählen sich hier ein oder werden über ihr Head-End beobachtet.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery temperature</source>
        <translation>Batterietemperatur</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery voltage</source>
        <translation>Batteriespannung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before power flows</source>
        <translation>Bevor Leistung fließt</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before the supply is switched</source>
        <translation>Vor dem Schalten der Versorgung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Begin</source>
        <translation>Beginn</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: day</source>
        <translation>Beginn: Tag</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: hour</source>
        <translation>Beginn: Stunde</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: month</source>
        <translation>Beginn: Monat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: which</source>
        <translation>Beginn: welcher</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Bench hub: the device dials in here</source>
        <translation>Messplatz-Hub: Das Gerät wählt sich hier ein</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Billable</source>
        <translation>Abrechenbar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Block check</source>
        <translation>Blockprüfung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Block cipher key</source>
        <translation>Blockchiffre-Schlüssel</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Body</source>
        <translation>Body</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Both forms of the public key agree</source>
        <translation>Beide Formen des öffentlichen Schlüssels stimmen überein</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Brand</source>
        <translation>Marke</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Break</source>
        <translation>Abbruch</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Burst test</source>
        <translation>Burst-Test</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>By the meter: Turkish where it names its generation, else VDEW, else standard.</source>
        <translation>Nach dem Zähler: türkisch, wo er seine Generation nennt, sonst VDEW, sonst Standard.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>C2 EVENT</source>
        <translation>C2 EVENT</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN HTTP service v1</source>
        <translation>CALIN HTTP-Dienst v1</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN HTTP service v2</source>
        <translation>CALIN HTTP-Dienst v2</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters over LoRaWAN</source>
        <translation>CALIN-Zähler über LoRaWAN</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v1</source>
        <translation>CALIN-Zähler, HTTP-Dienst v1</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v2</source>
        <translation>CALIN-Zähler, HTTP-Dienst v2</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>CALIN over LoRaWAN</source>
        <translation>CALIN über LoRaWAN</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>CALIN prepaid meter</source>
        <translation>CALIN-Prepaid-Zähler</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 hat kein READ_TIME; der Hersteller bietet nur das Datum.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 hat kein SET_TIME; der Hersteller bietet nur das Datum.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 hat kein READ_TIME; der Hersteller bietet nur das Datum.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 hat kein SET_TIME; der Hersteller bietet nur das Datum.</translation>
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
        <translation>Kabel</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call method</source>
        <translation>Methode aufrufen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call on {device}</source>
        <translation>Auf {device} aufrufen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Carrier id</source>
        <translation>Träger-ID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Certificate of this hub</source>
        <translation>Zertifikat dieses Hubs</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel</source>
        <translation>Kanal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 21, in frames of at most the set size.</source>
        <translation>Kanal 21, in Frames von höchstens der eingestellten Größe.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22.</source>
        <translation>Kanal 22.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22. 0x8003, 0x8005, 0x8007 and 0x3007 to 0x300A take raw values, the others typed ones.</source>
        <translation>Kanal 22. 0x8003, 0x8005, 0x8007 und 0x3007 bis 0x300A nehmen Rohwerte, die anderen typisierte.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 23. Expect no answer from the stock firmware.</source>
        <translation>Kanal 23. Erwarten Sie keine Antwort von der Serienfirmware.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 24. Expect no acknowledgement from the stock firmware.</source>
        <translation>Kanal 24. Erwarten Sie keine Bestätigung von der Serienfirmware.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Characters</source>
        <translation>Zeichen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Characters that are escaped besides 7E and 7D, profile rfc1662; 8 hex digits, FFFFFFFF escapes all control characters.</source>
        <translation>Zeichen, die außer 7E und 7D maskiert werden, Profil rfc1662; 8 Hexziffern, FFFFFFFF maskiert alle Steuerzeichen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Charge</source>
        <translation>Laden</translation>
    </message>
    <message>
        <source>Charging was confirmed, as this is</source>
        <translation type="vanished">Laden wurde bestätigt, wie auch dies</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Checksum of the sensor firmware</source>
        <translation>Prüfsumme der Sensorfirmware</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>ChirpStack sends it as header Authorization: Bearer, or X-Meterwright-Token.</source>
        <translation>ChirpStack sendet ihn als Header Authorization: Bearer oder X-Meterwright-Token.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering</source>
        <translation>Verschlüsselung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering goes on from the last counter used here; raise it when another program used the key.</source>
        <translation>Die Verschlüsselung zählt vom letzten hier verwendeten Stand weiter; erhöhen Sie ihn, wenn ein anderes Programm den Schlüssel verwendet hat.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Class</source>
        <translation>Klasse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear credit</source>
        <translation>Guthaben löschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear tamper</source>
        <translation>Manipulationsstatus löschen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clear tamper, clear credit, set power limit, read voltage, read power, first credit: one after the other. When one fails, the rest is not begun; doing the step again makes new tokens.</source>
        <translation>Manipulationsstatus löschen, Guthaben löschen, Leistungsgrenze einstellen, Spannung lesen, Leistung lesen, erstes Guthaben: eines nach dem anderen. Schlägt eines fehl, wird der Rest nicht begonnen; eine Wiederholung des Schritts erzeugt neue Token.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the credit of {device}</source>
        <translation>Guthaben von {device} löschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the tamper state of {device}</source>
        <translation>Manipulationsstatus von {device} löschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Cleared below the level by</source>
        <translation>Aufgehoben unter der Schwelle um</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Client address</source>
        <translation>Client-Adresse</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock</source>
        <translation>Uhr</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock ahead of this computer&apos;s</source>
        <translation>Vorgehen der Uhr gegenüber diesem Computer</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock before it is set</source>
        <translation>Uhr vor dem Stellen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock is synchronised</source>
        <translation>Uhr ist synchronisiert</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock of the meter</source>
        <translation>Uhr des Zählers</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Clocks may differ by</source>
        <translation>Uhren dürfen abweichen um</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Close in order</source>
        <translation>Ordentlich schließen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close in order (FIN)</source>
        <translation>Geordnet schließen (FIN)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close {device}</source>
        <translation>{device} schließen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Closes with a reset, which the stock firmware notices.</source>
        <translation>Schließt mit einem Reset, den die Serienfirmware bemerkt.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 1</source>
        <translation>Spalten von Lastgang 1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 2</source>
        <translation>Spalten von Lastgang 2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 3</source>
        <translation>Spalten von Lastgang 3</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Columns, period, and how many entries there are.</source>
        <translation>Spalten, Periode und wie viele Einträge es gibt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command must show its effect within</source>
        <translation>Befehl muss wirken innerhalb von</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Command octet</source>
        <translation>Befehlsbyte</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command waits for an offline device</source>
        <translation>Befehl wartet auf ein Offline-Gerät</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Commissioning</source>
        <translation>Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Company</source>
        <translation>Unternehmen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Confirmed by</source>
        <translation>Bestätigt durch</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: it leaves ERROR and shows no error flag.</source>
        <translation>Durch die Telemetrie des Geräts bestätigt: Es verlässt ERROR und zeigt kein Fehlerflag.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: the protocol has no answer to a command.</source>
        <translation>Durch die Telemetrie des Geräts bestätigt: Das Protokoll kennt keine Antwort auf einen Befehl.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect supply</source>
        <translation>Versorgung zuschalten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Connect the supply</source>
        <translation>Versorgung zuschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect {device}</source>
        <translation>{device} zuschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Consumption</source>
        <translation>Verbrauch</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Counted from 1, the oldest on most meters.</source>
        <translation>Ab 1 gezählt, bei den meisten Zählern der älteste.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Credit</source>
        <translation>Guthaben</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit after</source>
        <translation>Guthaben danach</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit before</source>
        <translation>Guthaben vorher</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent export</source>
        <translation>Kumuliertes Maximum Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent import</source>
        <translation>Kumuliertes Maximum Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum export</source>
        <translation>Kumuliertes Maximum Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum import</source>
        <translation>Kumuliertes Maximum Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum net</source>
        <translation>Kumuliertes Maximum netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive export</source>
        <translation>Kumuliertes Maximum Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive import</source>
        <translation>Kumuliertes Maximum Blindleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Current</source>
        <translation>Strom</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L1</source>
        <translation>Strom L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L2</source>
        <translation>Strom L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L3</source>
        <translation>Strom L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current N</source>
        <translation>Strom N</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Customer</source>
        <translation>Kunde</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>D: the meter sends by itself</source>
        <translation>D: der Zähler sendet von selbst</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC current</source>
        <translation>DC-Strom</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DC energy meter of charging stations over HTTP or HTTPS, with signed OCMF records.</source>
        <translation>DC-Energiezähler von Ladestationen über HTTP oder HTTPS, mit signierten OCMF-Datensätzen.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>DC meter of a charging station, on the network.</source>
        <translation>DC-Zähler einer Ladestation, im Netzwerk.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC voltage</source>
        <translation>DC-Spannung</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DENIED</source>
        <translation>DENIED</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>DLMS/COSEM meter</source>
        <translation>DLMS/COSEM-Zähler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Dashboard: through the head-end</source>
        <translation>Dashboard: über das Head-End</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Data</source>
        <translation>Daten</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Date</source>
        <translation>Datum</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Day</source>
        <translation>Tag</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Day of the week</source>
        <translation>Wochentag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Daylight saving of the meter</source>
        <translation>Sommerzeit des Zählers</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf after start</source>
        <translation>Taub nach dem Start</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf for the time that is set, then the serial number is read, then idle.</source>
        <translation>Taub für die eingestellte Zeit, dann wird die Seriennummer gelesen, danach Leerlauf.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>December</source>
        <translation>Dezember</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete directive</source>
        <translation>Direktive löschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete on {device}</source>
        <translation>Auf {device} löschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver a token</source>
        <translation>Token übergeben</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Deliver preexisting token</source>
        <translation>Vorhandenes Token übermitteln</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver to {device}</source>
        <translation>An {device} übergeben</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Demand period</source>
        <translation>Messperiode</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Detect</source>
        <translation>Erkennen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Deviation of the meter&apos;s clock</source>
        <translation>Abweichung der Zähleruhr</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Device address</source>
        <translation>Geräteadresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Device below a server: the digits of its login (ICCID), or the address it connects from, with or without :port.</source>
        <translation>Gerät unter einem Server: die Ziffern seiner Anmeldung (ICCID) oder die Adresse, von der es sich verbindet, mit oder ohne :port.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Device id</source>
        <translation>Geräte-ID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Device profile</source>
        <translation>Geräteprofil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Dialect</source>
        <translation>Dialekt</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Did a lamp or tester behind the meter go out and come on again?</source>
        <translation>Ist eine Lampe oder ein Prüfgerät hinter dem Zähler aus- und wieder angegangen?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Directive</source>
        <translation>Direktive</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Directives</source>
        <translation>Direktiven</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Discharge</source>
        <translation>Entladen</translation>
    </message>
    <message>
        <source>Discharging was confirmed, as this is</source>
        <translation type="vanished">Entladen wurde bestätigt, wie auch dies</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Disconnect control</source>
        <translation>Abschaltsteuerung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect supply</source>
        <translation>Versorgung abschalten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Disconnect the supply</source>
        <translation>Versorgung abschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect {device}</source>
        <translation>{device} abschalten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Display and seals</source>
        <translation>Anzeige und Plomben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Do not answer</source>
        <translation>Nicht antworten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Do not use it</source>
        <translation>Nicht verwenden</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does a phase-sequence indicator at the meter&apos;s terminals show a clockwise field?</source>
        <translation>Zeigt ein Drehfeldmesser an den Klemmen des Zählers ein Rechtsdrehfeld?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the display show no error, and are terminal cover and seals in place?</source>
        <translation>Zeigt die Anzeige keinen Fehler, und sind Klemmendeckel und Plomben am Platz?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the label read {device.serial}, are the gateway and its antenna fixed, and is the meter&apos;s line connected?</source>
        <translation>Steht auf dem Etikett {device.serial}, sind das Gateway und seine Antenne befestigt und ist die Leitung des Zählers angeschlossen?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the meter show its credit and no alarm, and does a lamp behind it burn?</source>
        <translation>Zeigt der Zähler sein Guthaben und keinen Alarm, und brennt eine Lampe dahinter?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate of the meter read {device.serial}, are its seals whole and its cables as in the drawing?</source>
        <translation>Steht auf dem Typenschild des Zählers {device.serial}, sind seine Plomben unversehrt und seine Kabel wie in der Zeichnung?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate read {device.serial}, is the meter wired as the connection says, and is its cover closed?</source>
        <translation>Steht auf dem Typenschild {device.serial}, ist der Zähler verdrahtet, wie die Verbindung angibt, und ist sein Deckel geschlossen?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Doubt about the certificate</source>
        <translation>Zweifel am Zertifikat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop module</source>
        <translation>Modul trennen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop {device}</source>
        <translation>{device} trennen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>E: its readable part, as C</source>
        <translation>E: sein lesbarer Teil, wie C</translation>
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
        <translation>EMH-Zähler: 1 bis 4, zusammen mit der Zähleradresse.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS device behind a head-end</source>
        <translation>EMS-Gerät hinter einem Head-End</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS edge device</source>
        <translation>EMS-Edge-Gerät</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>EMS edge device (WebSocket)</source>
        <translation>EMS-Edge-Gerät (WebSocket)</translation>
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
        <translation>EVSE-ID</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Earliest end</source>
        <translation>Frühestes Ende</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Echo</source>
        <translation>Echo</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Either end of the module&apos;s UART.</source>
        <translation>Beide Enden des UART des Moduls.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Empty: NTP is switched off.</source>
        <translation>Leer: NTP wird ausgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: everything, or by entries.</source>
        <translation>Leer: alles, oder nach Einträgen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: from the beginning. The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>Leer: von Anfang an. Es wird angenommen, dass die Uhr des Zählers die Ortszeit dieses Computers zeigt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Empty: no MQTT; events then come as webhooks.</source>
        <translation>Leer: kein MQTT; Ereignisse kommen dann als Webhooks.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Empty: the address from which it dials in, or the one it tells.</source>
        <translation>Leer: die Adresse, von der es sich einwählt, oder die es nennt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: this computer&apos;s time at the moment of sending.</source>
        <translation>Leer: die Zeit dieses Computers im Moment des Sendens.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: to the end.</source>
        <translation>Leer: bis zum Ende.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: up to now.</source>
        <translation>Leer: bis jetzt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: whichever meter is there. Needed where several share a line. Turkish meters: manufacturer and serial number.</source>
        <translation>Leer: welcher Zähler auch immer da ist. Nötig, wo sich mehrere eine Leitung teilen. Türkische Zähler: Hersteller und Seriennummer.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: without parameter.</source>
        <translation>Leer: ohne Parameter.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Encrypt (wss)</source>
        <translation>Verschlüsseln (wss)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Encrypted connection</source>
        <translation>Verschlüsselte Verbindung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End</source>
        <translation>Ende</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End the test transaction</source>
        <translation>Testtransaktion beenden</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: day</source>
        <translation>Ende: Tag</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: hour</source>
        <translation>Ende: Stunde</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: month</source>
        <translation>Ende: Monat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: which</source>
        <translation>Ende: welcher</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Ends the transaction and fetches its signed record.</source>
        <translation>Beendet die Transaktion und holt ihren signierten Datensatz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Energy</source>
        <translation>Energie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute</source>
        <translation>Energie absolut</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L1</source>
        <translation>Energie absolut L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L2</source>
        <translation>Energie absolut L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L3</source>
        <translation>Energie absolut L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export</source>
        <translation>Scheinenergie Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L1</source>
        <translation>Scheinenergie Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L2</source>
        <translation>Scheinenergie Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L3</source>
        <translation>Scheinenergie Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import</source>
        <translation>Scheinenergie Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L1</source>
        <translation>Scheinenergie Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L2</source>
        <translation>Scheinenergie Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L3</source>
        <translation>Scheinenergie Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Energy cost</source>
        <translation>Energiekosten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy export</source>
        <translation>Energie Lieferung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy export (2.8.0)</source>
        <translation>Energie Lieferung (2.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L1</source>
        <translation>Energie Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L2</source>
        <translation>Energie Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L3</source>
        <translation>Energie Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy import</source>
        <translation>Energie Bezug</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy import (1.8.0)</source>
        <translation>Energie Bezug (1.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L1</source>
        <translation>Energie Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L2</source>
        <translation>Energie Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L3</source>
        <translation>Energie Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net</source>
        <translation>Energie netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L1</source>
        <translation>Energie netto L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L2</source>
        <translation>Energie netto L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L3</source>
        <translation>Energie netto L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy of the test</source>
        <translation>Energie des Tests</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export</source>
        <translation>Blindenergie Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L1</source>
        <translation>Blindenergie Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L2</source>
        <translation>Blindenergie Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L3</source>
        <translation>Blindenergie Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import</source>
        <translation>Blindenergie Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L1</source>
        <translation>Blindenergie Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L2</source>
        <translation>Blindenergie Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L3</source>
        <translation>Blindenergie Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I</source>
        <translation>Blindenergie Quadrant I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L1</source>
        <translation>Blindenergie Quadrant I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L2</source>
        <translation>Blindenergie Quadrant I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L3</source>
        <translation>Blindenergie Quadrant I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II</source>
        <translation>Blindenergie Quadrant II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L1</source>
        <translation>Blindenergie Quadrant II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L2</source>
        <translation>Blindenergie Quadrant II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L3</source>
        <translation>Blindenergie Quadrant II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III</source>
        <translation>Blindenergie Quadrant III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L1</source>
        <translation>Blindenergie Quadrant III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L2</source>
        <translation>Blindenergie Quadrant III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L3</source>
        <translation>Blindenergie Quadrant III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV</source>
        <translation>Blindenergie Quadrant IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L1</source>
        <translation>Blindenergie Quadrant IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L2</source>
        <translation>Blindenergie Quadrant IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L3</source>
        <translation>Blindenergie Quadrant IV L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy under load</source>
        <translation>Energie unter Last</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Entry in the meter&apos;s table of loss compensation.</source>
        <translation>Eintrag in der Verlustkompensationstabelle des Zählers.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flag</source>
        <translation>Fehlerflag</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flags</source>
        <translation>Fehlerflags</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Error status</source>
        <translation>Fehlerstatus</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Event log</source>
        <translation>Ereignislog</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Every register of the object list, which is read first when it is not known.</source>
        <translation>Jedes Register der Objektliste, die zuerst gelesen wird, wenn sie nicht bekannt ist.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute</source>
        <translation>Ausführen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute on {device}</source>
        <translation>Auf {device} ausführen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Export register</source>
        <translation>Lieferregister</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>FCS octets swapped</source>
        <translation>FCS-Bytes vertauscht</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fatal error</source>
        <translation>Schwerer Fehler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Fault</source>
        <translation>Fehler</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>February</source>
        <translation>Februar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>File</source>
        <translation>Datei</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fingerprint</source>
        <translation>Fingerabdruck</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fingerprint (SHA-256)</source>
        <translation>Fingerabdruck (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware</source>
        <translation>Firmware</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware as ordered</source>
        <translation>Firmware laut Bestellung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware of the sensor unit</source>
        <translation>Firmware der Sensoreinheit</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First</source>
        <translation>Erster</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>First baud rate</source>
        <translation>Erste Baudrate</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>First entry</source>
        <translation>Erster Eintrag</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First line</source>
        <translation>Erste Zeile</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>First look at a task</source>
        <translation>Erstes Nachsehen bei einem Auftrag</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First object</source>
        <translation>Erstes Objekt</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First port</source>
        <translation>Erster Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server</source>
        <translation>Erster Zeitserver</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server, port</source>
        <translation>Erster Zeitserver, Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Fixed baud rate</source>
        <translation>Feste Baudrate</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Flags, firmware, keys and the meter&apos;s clock.</source>
        <translation>Flags, Firmware, Schlüssel und die Uhr des Zählers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For a peer whose FCS order is not that of its profile.</source>
        <translation>Für eine Gegenseite, deren FCS-Reihenfolge nicht ihrem Profil entspricht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>For a server of one&apos;s own with TLS; empty: the usual authorities. Also used for MQTT.</source>
        <translation>Für einen eigenen Server mit TLS; leer: die üblichen Zertifizierungsstellen. Auch für MQTT verwendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>For a service behind TLS with a certificate of its own; empty: the usual authorities.</source>
        <translation>Für einen Dienst hinter TLS mit eigenem Zertifikat; leer: die üblichen Zertifizierungsstellen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>For a service with a certificate of its own; empty: the usual authorities.</source>
        <translation>Für einen Dienst mit eigenem Zertifikat; leer: die üblichen Zertifizierungsstellen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x2100; the low octet is the link octet.</source>
        <translation>Zum Beispiel 0x2100; das niedrigere Byte ist das Link-Byte.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x8005.</source>
        <translation>Zum Beispiel 0x8005.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 1-0:1.8.0*255.</source>
        <translation>Zum Beispiel 1-0:1.8.0*255.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 9600 8N1. Serial ports only.</source>
        <translation>Zum Beispiel 9600 8N1. Nur serielle Schnittstellen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example AT+CSQ?; CR LF is added. Only modules of the first generation answer.</source>
        <translation>Zum Beispiel AT+CSQ?; CR LF wird angehängt. Nur Module der ersten Generation antworten.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>For example a card number. With the transaction id it is cut to 37 bytes.</source>
        <translation>Zum Beispiel eine Kartennummer. Zusammen mit der Transaktions-ID auf 37 Bytes gekürzt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For mode E on ports that only do 8N1.</source>
        <translation>Für Modus E an Schnittstellen, die nur 8N1 können.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>For the first octet of an answer.</source>
        <translation>Auf das erste Byte einer Antwort.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fourth</source>
        <translation>Vierter</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Frame</source>
        <translation>Frame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frame profile</source>
        <translation>Frame-Profil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frames</source>
        <translation>Frames</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>Frames for Wireshark (*.pcapng)</source>
        <translation>Frames für Wireshark (*.pcapng)</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Frames on a UART between meter and module, raw TCP behind it; plays each side, or stands between.</source>
        <translation>Frames auf einem UART zwischen Zähler und Modul, dahinter reines TCP; spielt jede Seite oder steht dazwischen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Framing</source>
        <translation>Rahmung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Frequency</source>
        <translation>Frequenz</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Friday</source>
        <translation>Freitag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From</source>
        <translation>Von</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the acknowledgement to the result.</source>
        <translation>Von der Bestätigung bis zum Ergebnis.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>From the frame to its answer.</source>
        <translation>Vom Frame bis zu seiner Antwort.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the gateway&apos;s acknowledgement to the result.</source>
        <translation>Von der Bestätigung des Gateways bis zum Ergebnis.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>From this computer&apos;s clock, or by the time servers of the connection. Starting a transaction sets it as well.</source>
        <translation>Nach der Uhr dieses Computers oder durch die Zeitserver der Verbindung. Auch das Starten einer Transaktion stellt sie.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1 form</source>
        <translation>Form G1</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1: its predecessor</source>
        <translation>G1: der Vorgänger</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2 form</source>
        <translation>Form G2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2: published since 2023</source>
        <translation>G2: seit 2023 veröffentlicht</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>GMAC (HLS)</source>
        <translation>GMAC (HLS)</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Gateways that dial in over TCP and read meters on serial lines; nothing is encrypted.</source>
        <translation>Gateways, die sich über TCP einwählen und Zähler an seriellen Leitungen lesen; nichts ist verschlüsselt.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Geographic code</source>
        <translation>Geografischer Code</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get meter parameter</source>
        <translation>Zählerparameter lesen</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get parameter</source>
        <translation>Modulparameter lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Give the password</source>
        <translation>Passwort angeben</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid apparent power</source>
        <translation>Netzscheinleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid current</source>
        <translation>Netzstrom</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid demand</source>
        <translation>Netzleistungsmittelwert</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy export</source>
        <translation>Netzenergie Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy import</source>
        <translation>Netzenergie Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid frequency</source>
        <translation>Netzfrequenz</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid peak demand</source>
        <translation>Netzleistungsmaximum</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power</source>
        <translation>Netzleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power factor</source>
        <translation>Netzleistungsfaktor</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid reactive power</source>
        <translation>Netzblindleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid total energy</source>
        <translation>Netzenergie gesamt</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid voltage</source>
        <translation>Netzspannung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC (serial)</source>
        <translation>HDLC (seriell)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC begins</source>
        <translation>HDLC beginnt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only: frames are numbered.</source>
        <translation>Nur HDLC: Frames sind nummeriert.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only; the meter may agree to less.</source>
        <translation>Nur HDLC; der Zähler kann weniger aushandeln.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handed over</source>
        <translation>Übergeben</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake and telemetry</source>
        <translation>Handshake und Telemetrie</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake, telemetry, and a walk through idle, charging and discharging within safe limits, then back to AUTO. The device has to be connected. While it is held in a manual mode, keep this program open: a minute after the connection is lost the device goes back to AUTO by itself.</source>
        <translation>Handshake, Telemetrie und ein Rundgang durch Leerlauf, Laden und Entladen in sicheren Grenzen, dann zurück zu AUTO. Das Gerät muss verbunden sein. Solange es in einem manuellen Modus gehalten wird, lassen Sie dieses Programm geöffnet: Eine Minute nach Verlust der Verbindung geht das Gerät von selbst zurück zu AUTO.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Head-end</source>
        <translation>Head-End</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Head-end for fleets</source>
        <translation>Head-End für Flotten</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Head-end: device messaging</source>
        <translation>Head-End: Gerätenachrichten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Heartbeat</source>
        <translation>Heartbeat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH.</source>
        <translation>Hexziffern oder text: und der Text mit \r, \n und \xHH.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH. Sent as they are; empty: the frame is built from the fields below.</source>
        <translation>Hexziffern oder text: und der Text mit \r, \n und \xHH. Unverändert gesendet; leer: Der Frame wird aus den Feldern unten gebildet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Hex, seven bits each; parity is added as the connection says.</source>
        <translation>Hex, je sieben Bit; die Parität wird nach der Verbindung ergänzt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>High octet first</source>
        <translation>Höheres Byte zuerst</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Highest baud rate</source>
        <translation>Höchste Baudrate</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest credit afterwards</source>
        <translation>Höchstes Guthaben danach</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest current</source>
        <translation>Höchster Strom</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest power right after installation</source>
        <translation>Höchste Leistung direkt nach der Installation</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest temperature of the sensors</source>
        <translation>Höchste Temperatur der Sensoren</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest voltage</source>
        <translation>Höchste Spannung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Hour</source>
        <translation>Stunde</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>ICCID</source>
        <translation>ICCID</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>IEC 62056-21 meter</source>
        <translation>IEC 62056-21-Zähler</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>IEC 62056-21 or DLMS/COSEM. Rate, format and protocol are found by trying.</source>
        <translation>IEC 62056-21 oder DLMS/COSEM. Baudrate, Format und Protokoll werden durch Versuche gefunden.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>IEC 62056-21 readout</source>
        <translation>IEC 62056-21-Auslesung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI</source>
        <translation>IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI on the module&apos;s label</source>
        <translation>IMEI auf dem Etikett des Moduls</translation>
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
        <translation>IP-Adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>IP address or name of the meter. Meters leave the factory with 192.168.1.2.</source>
        <translation>IP-Adresse oder Name des Zählers. Zähler verlassen das Werk mit 192.168.1.2.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4 address of this computer that the gateway reaches; empty: the one that leads to it.</source>
        <translation>IPv4-Adresse dieses Computers, die das Gateway erreicht; leer: die, die zu ihm führt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4; the gateway knows no names.</source>
        <translation>IPv4; das Gateway kennt keine Namen.</translation>
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
        <translation>ID des Knotens im Baum, über den er erreicht wird. Leer: der, zu dem er gehört</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Id of the test transaction</source>
        <translation>ID der Testtransaktion</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identification</source>
        <translation>Identifikation</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification data</source>
        <translation>Identifikationsdaten</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification type</source>
        <translation>Identifikationsart</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Identification type to enforce</source>
        <translation>Zu erzwingende Identifikationsart</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identify by asking</source>
        <translation>Durch Fragen identifizieren</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity</source>
        <translation>Identität</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registers</source>
        <translation>Identität und Register</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registration, its log, its directives, and one meter in its index. Run the flow of the meter after it. Nothing is changed unless adding the meter is allowed.</source>
        <translation>Identität und Registrierung, sein Log, seine Direktiven und ein Zähler in seinem Index. Führen Sie danach den Ablauf des Zählers aus. Nichts wird geändert, außer das Hinzufügen des Zählers ist erlaubt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and state</source>
        <translation>Identität und Zustand</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and stored directives</source>
        <translation>Identität und gespeicherte Direktiven</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity of the module</source>
        <translation>Identität des Moduls</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity or address:port of the module as in the table; empty: the only one that is connected.</source>
        <translation>Identität oder address:port des Moduls wie in der Tabelle; leer: das einzige verbundene.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, firmware, status, clock, TLS, live values, one signed test transaction and its OCMF record. It takes two and a half minutes, under load one more. The meter keeps the record of the test transaction for good; nothing else of it is changed but its clock.</source>
        <translation>Identität, Firmware, Status, Uhr, TLS, Live-Werte, eine signierte Testtransaktion und ihr OCMF-Datensatz. Dauert zweieinhalb Minuten, unter Last eine mehr. Der Zähler behält den Datensatz der Testtransaktion dauerhaft; sonst wird nur seine Uhr geändert.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2), in any form.</source>
        <translation>Identität, Auslesung, Versorgungsspannungen, Drehfeld und Uhr. Nichts wird geschrieben, außer das Stellen der Uhr ist erlaubt. Momentanwerte werden unter ihren OBIS-Codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2) in beliebiger Form gesucht.</translation>
    </message>
    <message>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their short OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</source>
        <translation type="vanished">Identität, Auslesung, Versorgungsspannungen, Drehfeld und Uhr. Nichts wird geschrieben, außer das Stellen der Uhr ist erlaubt. Momentanwerte werden unter ihren kurzen OBIS-Codes gesucht (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, registers, supply voltages, phase sequence, clock and, where it is allowed, the disconnector. Nothing is written unless setting the clock or switching the supply is allowed.</source>
        <translation>Identität, Register, Versorgungsspannungen, Drehfeld, Uhr und, wo erlaubt, das Abschaltrelais. Nichts wird geschrieben, außer das Stellen der Uhr oder das Schalten der Versorgung ist erlaubt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: IMEI</source>
        <translation>Identität: IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: label</source>
        <translation>Identität: Etikett</translation>
    </message>
    <message>
        <source>Idle was confirmed, as this is</source>
        <translation type="vanished">Leerlauf wurde bestätigt, wie auch dies</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ignored without the first one.</source>
        <translation>Ohne den ersten ignoriert.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Import register</source>
        <translation>Bezugsregister</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In UTC, for example T01:00Z.</source>
        <translation>In UTC, zum Beispiel T01:00Z.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>In mode D nothing is sent to the meter; read it out, which waits for its next message.</source>
        <translation>Im Modus D wird nichts an den Zähler gesendet; lesen Sie ihn aus, das wartet auf seine nächste Nachricht.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>In the readout the meter&apos;s clock showed {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value}; by this computer it is {now} now. Is the meter&apos;s clock right?</source>
        <translation>In der Auslesung zeigte die Uhr des Zählers {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value}; nach diesem Computer ist es jetzt {now}. Geht die Uhr des Zählers richtig?</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In use</source>
        <translation>In Gebrauch</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Information of a frame</source>
        <translation>Informationsfeld eines Frames</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Inspect the device first: it switches its output on again as soon as it is asked for power.</source>
        <translation>Untersuchen Sie zuerst das Gerät: Es schaltet seinen Ausgang wieder ein, sobald Leistung verlangt wird.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC current</source>
        <translation>Wechselrichter AC-Strom</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC power</source>
        <translation>Wechselrichter AC-Leistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC voltage</source>
        <translation>Wechselrichter AC-Spannung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC current</source>
        <translation>Wechselrichter DC-Strom</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC power</source>
        <translation>Wechselrichter DC-Leistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC voltage</source>
        <translation>Wechselrichter DC-Spannung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter efficiency</source>
        <translation>Wechselrichter Wirkungsgrad</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter energy generated</source>
        <translation>Wechselrichter erzeugte Energie</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Invocation counter, least</source>
        <translation>Aufrufzähler, mindestens</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the customer told, and is nobody working on the installation behind {device.name}?</source>
        <translation>Ist der Kunde informiert, und arbeitet niemand an der Anlage hinter {device.name}?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the module&apos;s cable back on its meter, and does the module&apos;s lamp show a connection?</source>
        <translation>Ist das Kabel des Moduls wieder an seinem Zähler, und zeigt die Lampe des Moduls eine Verbindung?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>It answers once more.</source>
        <translation>Es antwortet noch einmal.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>It decides the tariff and when it is switched.</source>
        <translation>Sie bestimmt den Tarif und wann umgeschaltet wird.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>It decides which commands there are. One that is not in the list may be typed.</source>
        <translation>Es bestimmt, welche Befehle es gibt. Eines, das nicht in der Liste steht, kann eingetippt werden.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>It dials in to this computer.</source>
        <translation>Es wählt sich bei diesem Computer ein.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Its gateway or concentrator</source>
        <translation>Sein Gateway oder Konzentrator</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its log</source>
        <translation>Sein Log</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its register has not gone backwards.</source>
        <translation>Sein Register ist nicht zurückgelaufen.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>JOIN_NETWORK is never sent; it is a report of LoRaWAN meters.</source>
        <translation>JOIN_NETWORK wird nie gesendet; es ist eine Meldung von LoRaWAN-Zählern.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>JSON Lines, everything (*.jsonl)</source>
        <translation>JSON Lines, alles (*.jsonl)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>January</source>
        <translation>Januar</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Join network</source>
        <translation>Netzwerk beitreten</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>July</source>
        <translation>Juli</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>June</source>
        <translation>Juni</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>KEY_CODE</source>
        <translation>KEY_CODE</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Key</source>
        <translation>Schlüssel</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>LEM DCBM 400/600</source>
        <translation>LEM DCBM 400/600</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>LEM DCBM DC meter</source>
        <translation>LEM DCBM DC-Zähler</translation>
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
        <translation>Letzter</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent export</source>
        <translation>Letzter Mittelwert Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent import</source>
        <translation>Letzter Mittelwert Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average export</source>
        <translation>Letzter Mittelwert Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average import</source>
        <translation>Letzter Mittelwert Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average net</source>
        <translation>Letzter Mittelwert netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive export</source>
        <translation>Letzter Mittelwert Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive import</source>
        <translation>Letzter Mittelwert Blindleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Last entry</source>
        <translation>Letzter Eintrag</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left as it was found</source>
        <translation>Zurückgelassen wie vorgefunden</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left ready</source>
        <translation>Bereit zurückgelassen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Legal firmware</source>
        <translation>Eichrechtliche Firmware</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Letters, digits, _ and -, at most 63; * means all.</source>
        <translation>Buchstaben, Ziffern, _ und -, höchstens 63; * bedeutet alle.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Limit {device}</source>
        <translation>{device} begrenzen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Line</source>
        <translation>Leitung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Line format</source>
        <translation>Leitungsformat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Link octet</source>
        <translation>Link-Byte</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Link to the sensor unit</source>
        <translation>Verbindung zur Sensoreinheit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>List directives</source>
        <translation>Direktiven auflisten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>List modules</source>
        <translation>Module auflisten</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Listen at</source>
        <translation>Lauschen an</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Listen for</source>
        <translation>Lauschdauer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on</source>
        <translation>Lauschen auf</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on port</source>
        <translation>Lauschen an Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only</source>
        <translation>Nur lauschen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only: nothing is ever sent, every message on the line becomes a row.</source>
        <translation>Nur lauschen: Es wird nie etwas gesendet, jede Nachricht auf der Leitung wird eine Zeile.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Listening port</source>
        <translation>Lausch-Port</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values before the test</source>
        <translation>Live-Werte vor dem Test</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values under load</source>
        <translation>Live-Werte unter Last</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>LoRaWAN meters of one grid share a pace. Empty: none</source>
        <translation>LoRaWAN-Zähler eines Netzes teilen sich einen Takt. Leer: keine</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load active power</source>
        <translation>Last Wirkleistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load demand</source>
        <translation>Last Leistungsmittelwert</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load energy consumed</source>
        <translation>Last verbrauchte Energie</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load peak demand</source>
        <translation>Last Leistungsmaximum</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Load profile</source>
        <translation>Lastgang</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 1</source>
        <translation>Lastgang 1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 2</source>
        <translation>Lastgang 2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile period</source>
        <translation>Lastgangperiode</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load runtime</source>
        <translation>Last Laufzeit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Local address</source>
        <translation>Lokale Adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Log</source>
        <translation>Log</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Log of parameter changes</source>
        <translation>Log der Parameteränderungen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Logical device</source>
        <translation>Logisches Gerät</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Longest APDU</source>
        <translation>Längste APDU</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Longest readout</source>
        <translation>Längste Auslesung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Look at a command every</source>
        <translation>Befehl nachsehen alle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Low octet first</source>
        <translation>Niedrigeres Byte zuerst</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest credit afterwards</source>
        <translation>Niedrigstes Guthaben danach</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest current under load</source>
        <translation>Niedrigster Strom unter Last</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest signal quality (CSQ)</source>
        <translation>Niedrigste Signalqualität (CSQ)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest voltage</source>
        <translation>Niedrigste Spannung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>MD5 (HLS)</source>
        <translation>MD5 (HLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT broker</source>
        <translation>MQTT-Broker</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT password</source>
        <translation>MQTT-Passwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT port</source>
        <translation>MQTT-Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT user</source>
        <translation>MQTT-Benutzer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT with TLS</source>
        <translation>MQTT mit TLS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Made here by Make certificate; its key is in this computer&apos;s keyring. Give a copy to the device.</source>
        <translation>Hier mit Zertifikat erstellen erzeugt; sein Schlüssel liegt im Schlüsselbund dieses Computers. Geben Sie dem Gerät eine Kopie.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Made in ChirpStack under API keys.</source>
        <translation>In ChirpStack unter API keys erstellt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Make</source>
        <translation>Fabrikat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make a certificate for the hub of {device}</source>
        <translation>Zertifikat für den Hub von {device} erstellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make certificate</source>
        <translation>Zertifikat erstellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Makes the certificate of the encrypted hub (wss) with its key. The result holds it for the device to trust; the key stays in this computer&apos;s keyring. Devices that trust an earlier one need the new one, and all devices of this hub connect anew.</source>
        <translation>Erzeugt das Zertifikat des verschlüsselten Hubs (wss) mit seinem Schlüssel. Das Ergebnis enthält es, damit das Gerät ihm vertraut; der Schlüssel bleibt im Schlüsselbund dieses Computers. Geräte, die einem früheren vertrauen, brauchen das neue, und alle Geräte dieses Hubs verbinden sich neu.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Makes the meter known to ChirpStack and gives it its key. A meter that is known already stays as it is.</source>
        <translation>Macht den Zähler in ChirpStack bekannt und gibt ihm seinen Schlüssel. Ein bereits bekannter Zähler bleibt, wie er ist.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manual, idle</source>
        <translation>Manuell, Leerlauf</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manufacturer</source>
        <translation>Hersteller</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>March</source>
        <translation>März</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent export</source>
        <translation>Leistungsmaximum Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent import</source>
        <translation>Leistungsmaximum Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand export</source>
        <translation>Leistungsmaximum Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand import</source>
        <translation>Leistungsmaximum Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand net</source>
        <translation>Leistungsmaximum netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive export</source>
        <translation>Leistungsmaximum Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive import</source>
        <translation>Leistungsmaximum Blindleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May</source>
        <translation>Mai</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May take minutes, during which no live values are read.</source>
        <translation>Kann Minuten dauern, in denen keine Live-Werte gelesen werden.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measure the battery voltage at the terminals. What does your instrument show?</source>
        <translation>Messen Sie die Batteriespannung an den Klemmen. Was zeigt Ihr Messgerät?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measuring failure</source>
        <translation>Messfehler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Meter address</source>
        <translation>Zähleradresse</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Meter behind an Aviora gateway</source>
        <translation>Zähler hinter einem Aviora-Gateway</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Meter on an optical head, RS-485 or serial server</source>
        <translation>Zähler an Optokopf, RS-485 oder seriellem Server</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Meter serial</source>
        <translation>Seriennummer des Zählers</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Meter: tests a module</source>
        <translation>Zähler: testet ein Modul</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Meters behind the device-messaging service: it keeps queue and retries, answers come as signed webhooks.</source>
        <translation>Zähler hinter dem Dienst für Gerätenachrichten: Er führt Warteschlange und Wiederholungen, Antworten kommen als signierte Webhooks.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Meters on an optical head, RS-485 or TCP: readout, registers, load profile, clock (also IEC 1107).</source>
        <translation>Zähler an Optokopf, RS-485 oder TCP: Auslesung, Register, Lastgang, Uhr (auch IEC 1107).</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Meters that speak DLMS/COSEM over a serial line, an optical head or TCP, with or without keys.</source>
        <translation>Zähler, die DLMS/COSEM über eine serielle Leitung, einen Optokopf oder TCP sprechen, mit oder ohne Schlüssel.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Method</source>
        <translation>Methode</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Methods reset registers, end demand periods and switch the supply.</source>
        <translation>Methoden setzen Register zurück, beenden Messperioden und schalten die Versorgung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Minute</source>
        <translation>Minute</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Mode</source>
        <translation>Modus</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Mode D: until the meter sends.</source>
        <translation>Modus D: bis der Zähler sendet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Model</source>
        <translation>Modell</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Modes A, B and D have no programming mode; read the meter out instead.</source>
        <translation>Die Modi A, B und D haben keinen Programmiermodus; lesen Sie den Zähler stattdessen aus.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module</source>
        <translation>Modul</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module: tests a meter</source>
        <translation>Modul: testet einen Zähler</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Monday</source>
        <translation>Montag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Month</source>
        <translation>Monat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>NONE</source>
        <translation>NONE</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate and seals</source>
        <translation>Typenschild und Plomben</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate, wiring and seals</source>
        <translation>Typenschild, Verdrahtung und Plomben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Names and addresses of this computer</source>
        <translation>Namen und Adressen dieses Computers</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>National practice</source>
        <translation>Landesübliche Praxis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Needed with calin-api-v1 and calin-api-v2</source>
        <translation>Nötig bei calin-api-v1 und calin-api-v2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Needs a certificate: Make certificate makes one for the device to trust.</source>
        <translation>Braucht ein Zertifikat: Zertifikat erstellen erzeugt eines, dem das Gerät vertrauen soll.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs an association that may write it.</source>
        <translation>Braucht eine Assoziation, die sie schreiben darf.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs the meter&apos;s password in the connection.</source>
        <translation>Braucht das Passwort des Zählers in der Verbindung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Network server</source>
        <translation>Netzwerkserver</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Never used below the warning level.</source>
        <translation>Nie unterhalb der Warnschwelle verwendet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nominal voltage</source>
        <translation>Nennspannung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>None: nothing is answered</source>
        <translation>Keine: nichts wird beantwortet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Not at all</source>
        <translation>Gar nicht</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>November</source>
        <translation>November</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its concentrator</source>
        <translation>Nummer seines Konzentrators</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its grid at the head-end</source>
        <translation>Nummer seines Netzes am Head-End</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Number of the record</source>
        <translation>Nummer des Datensatzes</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Numbers in digits, octets in hex, times in ISO 8601; raw is A-XDR in hex.</source>
        <translation>Zahlen in Ziffern, Bytes in Hex, Zeiten in ISO 8601; raw ist A-XDR in Hex.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>OBIS code</source>
        <translation>OBIS-Code</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record</source>
        <translation>OCMF-Datensatz</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record from the meter&apos;s memory</source>
        <translation>OCMF-Datensatz aus dem Speicher des Zählers</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Object list</source>
        <translation>Objektliste</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Octets</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Octets in hex begin with 0x. A wrong one is not tried again by itself.</source>
        <translation>Hex-Bytes beginnen mit 0x. Ein falsches wird nicht von selbst erneut versucht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Octets per frame</source>
        <translation>Bytes pro Frame</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>October</source>
        <translation>Oktober</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Of a three-phase meter the mean is judged here, and each phase in the next step.</source>
        <translation>Bei einem Drehstromzähler wird hier der Mittelwert bewertet und im nächsten Schritt jede Phase.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Of a typed value; empty: the parameter itself.</source>
        <translation>Eines typisierten Werts; leer: der Parameter selbst.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of charging or discharging, without a sign; empty: the device chooses. Devices clamp to 700 W charging and 300 W discharging.</source>
        <translation>Zum Laden oder Entladen, ohne Vorzeichen; leer: das Gerät wählt. Geräte begrenzen auf 700 W beim Laden und 300 W beim Entladen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Of one whole request.</source>
        <translation>Einer ganzen Anfrage.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Of phase A only; this service does not tell the others.</source>
        <translation>Nur von Phase A; dieser Dienst meldet die anderen nicht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Of programming mode, mostly 8 digits. Empty: without.</source>
        <translation>Des Programmiermodus, meist 8 Ziffern. Leer: ohne.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of the head-end or its issuer; empty: the usual ones.</source>
        <translation>Des Head-Ends oder seines Ausstellers; leer: die üblichen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Of the meter on its HDLC line, often 17 or the last digits of its number; empty: none.</source>
        <translation>Des Zählers auf seiner HDLC-Leitung, oft 17 oder die letzten Ziffern seiner Nummer; leer: keine.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter of one phase: then only voltage L1 is judged.</source>
        <translation>Aus bei einem Einphasenzähler: Dann wird nur die Spannung L1 bewertet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter that reads out registers only.</source>
        <translation>Aus bei einem Zähler, der nur Register ausliest.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One flag between them</source>
        <translation>Ein Flag dazwischen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per answer: text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. The first that fits answers.</source>
        <translation>Eine Zeile je Antwort: text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. Die erste passende antwortet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per parameter, for example 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</source>
        <translation>Eine Zeile je Parameter, zum Beispiel 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>One login at the vendor&apos;s service.</source>
        <translation>Eine Anmeldung beim Dienst des Herstellers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One of the same id is replaced. The known firmware stores directives and does not execute them.</source>
        <translation>Eine mit derselben ID wird ersetzt. Die bekannte Firmware speichert Direktiven, führt sie aber nicht aus.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One operation=parameter a line, for example setBaud=300.</source>
        <translation>Je Zeile ein Operation=Parameter, zum Beispiel setBaud=300.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Only Turkish national meters have this (96.3.10). Sign on once, or choose the national practice in the connection.</source>
        <translation>Nur türkische Zähler haben dies (96.3.10). Melden Sie sich einmal an, oder wählen Sie in der Verbindung die landesübliche Praxis.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Only a bench hub has a certificate of its own.</source>
        <translation>Nur ein Messplatz-Hub hat ein eigenes Zertifikat.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only after an inspection: the device switches its output on again as soon as it is asked for power.</source>
        <translation>Nur nach einer Untersuchung: Das Gerät schaltet seinen Ausgang wieder ein, sobald Leistung verlangt wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only an intermediate record</source>
        <translation>Nur ein Zwischendatensatz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Only for 0x2803, instead of the value; it is never shown.</source>
        <translation>Nur für 0x2803, anstelle des Werts; es wird nie gezeigt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only of a three-phase meter whose head-end tells all of them.</source>
        <translation>Nur bei einem Drehstromzähler, dessen Head-End alle meldet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only sent to newer firmware (v2).</source>
        <translation>Wird nur an neuere Firmware (v2) gesendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Only the serial number has an effect today. To change a meter, remove it first. The gateway lists no meters; what was sent is kept here.</source>
        <translation>Nur die Seriennummer hat heute eine Wirkung. Um einen Zähler zu ändern, entfernen Sie ihn zuerst. Das Gateway listet keine Zähler auf; was gesendet wurde, wird hier aufbewahrt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only when it lasts</source>
        <translation>Nur wenn es andauert</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Operand</source>
        <translation>Operand</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Optical head, RS-485 adapter or serial server. Several meters may share one line.</source>
        <translation>Optokopf, RS-485-Adapter oder serieller Server. Mehrere Zähler können sich eine Leitung teilen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Optical heads mostly need the sign-on.</source>
        <translation>Optoköpfe brauchen meist die Anmeldung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the FCS</source>
        <translation>Reihenfolge der FCS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the request id and form of strings.</source>
        <translation>Reihenfolge der Anfrage-ID und Form der Zeichenketten.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other channels</source>
        <translation>Andere Kanäle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Other mode (expert)</source>
        <translation>Anderer Modus (Experte)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other side</source>
        <translation>Andere Seite</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Others than everything: Turkish meters.</source>
        <translation>Anderes als alles: türkische Zähler.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>P.01, P.02 and so on.</source>
        <translation>P.01, P.02 und so weiter.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>PHONE_NUMBER</source>
        <translation>PHONE_NUMBER</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Packets</source>
        <translation>Pakete</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pagination</source>
        <translation>Paginierung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameter</source>
        <translation>Parameter</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Parameter version</source>
        <translation>Parameterversion</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameters without answer</source>
        <translation>Parameter ohne Antwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Parity by</source>
        <translation>Parität durch</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough</source>
        <translation>Durchleitung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough as the module: channels 22 to 24.</source>
        <translation>Durchleitung als Modul: Kanäle 22 bis 24.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough between TCP and serial line</source>
        <translation>Durchleitung zwischen TCP und serieller Leitung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough: socket://HOST:PORT to connect to, or a second serial port; empty: listen on the address above.</source>
        <translation>Durchleitung: socket://HOST:PORT als Ziel oder eine zweite serielle Schnittstelle; leer: an der Adresse oben lauschen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password</source>
        <translation>Passwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for maintenance</source>
        <translation>Passwort für Wartung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for sales</source>
        <translation>Passwort für Verkäufe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for tasks</source>
        <translation>Passwort für Aufträge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password kind</source>
        <translation>Passwortart</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Password or secret</source>
        <translation>Passwort oder Geheimnis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Path</source>
        <translation>Pfad</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Pause between frames</source>
        <translation>Pause zwischen Frames</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence at the terminals</source>
        <translation>Drehfeld an den Klemmen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence by the meter&apos;s angles</source>
        <translation>Drehfeld nach den Winkeln des Zählers</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase to neutral; 10 % are allowed either way.</source>
        <translation>Phase gegen Neutralleiter; 10 % sind in beide Richtungen erlaubt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Phases</source>
        <translation>Phasen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Physical address</source>
        <translation>Physische Adresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Pinned TLS certificate</source>
        <translation>Festgelegtes TLS-Zertifikat</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Place and cabling</source>
        <translation>Ort und Verkabelung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Play the start of a module</source>
        <translation>Modulstart nachspielen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin at the head-end</source>
        <translation>Plugin am Head-End</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin that makes tokens for meters whose own plugin makes none: nxt-sts.</source>
        <translation>Plugin, das Token für Zähler erzeugt, deren eigenes Plugin keine erzeugt: nxt-sts.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Poll serial</source>
        <translation>Fragen, wer da ist</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Port</source>
        <translation>Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Port of the gateway</source>
        <translation>Port des Gateways</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power</source>
        <translation>Leistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute</source>
        <translation>Leistung absolut</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L1</source>
        <translation>Leistung absolut L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L2</source>
        <translation>Leistung absolut L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L3</source>
        <translation>Leistung absolut L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export</source>
        <translation>Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L1</source>
        <translation>Scheinleistung Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L2</source>
        <translation>Scheinleistung Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L3</source>
        <translation>Scheinleistung Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import</source>
        <translation>Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L1</source>
        <translation>Scheinleistung Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L2</source>
        <translation>Scheinleistung Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L3</source>
        <translation>Scheinleistung Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export</source>
        <translation>Leistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L1</source>
        <translation>Leistung Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L2</source>
        <translation>Leistung Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L3</source>
        <translation>Leistung Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor</source>
        <translation>Leistungsfaktor</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L1</source>
        <translation>Leistungsfaktor L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L2</source>
        <translation>Leistungsfaktor L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L3</source>
        <translation>Leistungsfaktor L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power failures</source>
        <translation>Spannungsausfälle</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import</source>
        <translation>Leistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L1</source>
        <translation>Leistung Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L2</source>
        <translation>Leistung Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L3</source>
        <translation>Leistung Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power limit</source>
        <translation>Leistungsgrenze</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net</source>
        <translation>Leistung netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L1</source>
        <translation>Leistung netto L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L2</source>
        <translation>Leistung netto L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L3</source>
        <translation>Leistung netto L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of charging</source>
        <translation>Ladeleistung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of discharging</source>
        <translation>Entladeleistung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power reached</source>
        <translation>Erreichte Leistung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export</source>
        <translation>Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L1</source>
        <translation>Blindleistung Lieferung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L2</source>
        <translation>Blindleistung Lieferung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L3</source>
        <translation>Blindleistung Lieferung L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import</source>
        <translation>Blindleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L1</source>
        <translation>Blindleistung Bezug L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L2</source>
        <translation>Blindleistung Bezug L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L3</source>
        <translation>Blindleistung Bezug L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I</source>
        <translation>Blindleistung Quadrant I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L1</source>
        <translation>Blindleistung Quadrant I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L2</source>
        <translation>Blindleistung Quadrant I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L3</source>
        <translation>Blindleistung Quadrant I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II</source>
        <translation>Blindleistung Quadrant II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L1</source>
        <translation>Blindleistung Quadrant II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L2</source>
        <translation>Blindleistung Quadrant II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L3</source>
        <translation>Blindleistung Quadrant II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III</source>
        <translation>Blindleistung Quadrant III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L1</source>
        <translation>Blindleistung Quadrant III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L2</source>
        <translation>Blindleistung Quadrant III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L3</source>
        <translation>Blindleistung Quadrant III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV</source>
        <translation>Blindleistung Quadrant IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L1</source>
        <translation>Blindleistung Quadrant IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L2</source>
        <translation>Blindleistung Quadrant IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L3</source>
        <translation>Blindleistung Quadrant IV L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Prefix of commands</source>
        <translation>Präfix der Befehle</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Prepaid AC meters behind ChirpStack v4: commands by REST or gRPC, answers by webhook or MQTT.</source>
        <translation>AC-Prepaid-Zähler hinter ChirpStack v4: Befehle über REST oder gRPC, Antworten über Webhook oder MQTT.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s first service.</source>
        <translation>AC-Prepaid-Zähler hinter Konzentratoren und dem ersten Dienst des Herstellers.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s second service.</source>
        <translation>AC-Prepaid-Zähler hinter Konzentratoren und dem zweiten Dienst des Herstellers.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Prepayment classes are not supported.</source>
        <translation>Prepayment-Klassen werden nicht unterstützt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Profile</source>
        <translation>Profil</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Profiles get a gap or a double period when the clock moves far.</source>
        <translation>Profile bekommen eine Lücke oder eine doppelte Periode, wenn die Uhr weit verstellt wird.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Program version</source>
        <translation>Programmversion</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Property number</source>
        <translation>Eigentumsnummer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Protocol</source>
        <translation>Protokoll</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Protocol mode</source>
        <translation>Protokollmodus</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error</source>
        <translation>Fehler auslösen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error at the device (for example by unplugging its temperature sensor), wait until its state is ERROR, then remove the cause. Is it done?</source>
        <translation>Lösen Sie am Gerät einen Fehler aus (zum Beispiel durch Abziehen des Temperatursensors), warten Sie, bis der Zustand ERROR ist, und beseitigen Sie dann die Ursache. Ist das erledigt?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Public key</source>
        <translation>Öffentlicher Schlüssel</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pull port</source>
        <translation>Pull-Port</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>QuecPython module link</source>
        <translation>QuecPython-Modulverbindung</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module on the network</source>
        <translation>QuecPython-Modul im Netzwerk</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module or its meter, on a serial line</source>
        <translation>QuecPython-Modul oder sein Zähler, an serieller Leitung</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>READ_REPORT is never sent; it is a report of LoRaWAN meters.</source>
        <translation>READ_REPORT wird nie gesendet; es ist eine Meldung von LoRaWAN-Zählern.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>RS-485</source>
        <translation>RS-485</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>RS-485 by RTS</source>
        <translation>RS-485 über RTS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>RS-485 driver by RTS</source>
        <translation>RS-485-Treiber über RTS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Rate</source>
        <translation>Baudrate</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Rate and character, for example 115200 8N1 or 9600 8N1.</source>
        <translation>Baudrate und Zeichenformat, zum Beispiel 115200 8N1 oder 9600 8N1.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Rate and format</source>
        <translation>Baudrate und Format</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Raw</source>
        <translation>Bytes senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Raw octets</source>
        <translation>Rohbytes</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read TLS certificate</source>
        <translation>TLS-Zertifikat lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read all registers</source>
        <translation>Alle Register lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read attribute</source>
        <translation>Attribut lesen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Read back by its id and verified once more.</source>
        <translation>Über seine ID zurückgelesen und noch einmal geprüft.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read certificate</source>
        <translation>Zertifikat lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read clock</source>
        <translation>Uhr lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read credit</source>
        <translation>Guthaben lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read current</source>
        <translation>Strom lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read date</source>
        <translation>Datum lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read events</source>
        <translation>Ereignisse lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read legal</source>
        <translation>Transaktionsdokument lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live</source>
        <translation>Aktuelle Werte lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live values</source>
        <translation>Live-Werte lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read load profile</source>
        <translation>Lastgang lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read log</source>
        <translation>Log lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read logbook</source>
        <translation>Logbuch lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read meter parameter</source>
        <translation>Zählerparameter lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Read metrics</source>
        <translation>Kennzahlen lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read module parameter</source>
        <translation>Modulparameter lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read object list</source>
        <translation>Objektliste lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read objects</source>
        <translation>Objekte lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read out</source>
        <translation>Auslesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power</source>
        <translation>Leistung lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power limit</source>
        <translation>Leistungsgrenze lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile info</source>
        <translation>Aufbau des Lastgangs lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile layout</source>
        <translation>Profilaufbau lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read record</source>
        <translation>Datensatz lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read register</source>
        <translation>Register lesen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read registers</source>
        <translation>Alle Register lesen</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Read report</source>
        <translation>Bericht lesen</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Read serial</source>
        <translation>Seriennummer lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read serial number</source>
        <translation>Seriennummer lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read settings</source>
        <translation>Einstellungen lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read signed record</source>
        <translation>Signierten Datensatz lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read status</source>
        <translation>Status lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read time</source>
        <translation>Uhrzeit lesen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read transaction document</source>
        <translation>Transaktionsdokument lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read version</source>
        <translation>Version lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read voltage</source>
        <translation>Spannung lesen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read with</source>
        <translation>Lesen mit</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Readout</source>
        <translation>Auslesung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Readout table</source>
        <translation>Auslesetabelle</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter&apos;s identification; the optical head has to sit on the meter with its cable downwards.</source>
        <translation>Liest die Identifikation des Zählers; der Optokopf muss mit dem Kabel nach unten auf dem Zähler sitzen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter, clears its tamper flag and credit, sets its power limit, reads voltage and power, loads the first credit of its grid, and reads it again. The credit that is in the meter is lost.</source>
        <translation>Liest den Zähler, löscht Manipulationsflag und Guthaben, stellt die Leistungsgrenze ein, liest Spannung und Leistung, lädt das erste Guthaben seines Netzes und liest den Zähler erneut. Das Guthaben im Zähler geht verloren.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Register</source>
        <translation>Register</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register at the network server</source>
        <translation>Am Netzwerkserver registrieren</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register {device}</source>
        <translation>{device} registrieren</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Registers are missing</source>
        <translation>Register fehlen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Relay flag of a report</source>
        <translation>Relaisflag einer Meldung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Release when idle for</source>
        <translation>Freigeben nach Leerlauf von</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove from {device}</source>
        <translation>Von {device} entfernen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove meter</source>
        <translation>Zähler entfernen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Repeats without an answer</source>
        <translation>Wiederholungen ohne Antwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Request id</source>
        <translation>Anfrage-ID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset error</source>
        <translation>Fehler zurücksetzen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reset the error</source>
        <translation>Fehler zurücksetzen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset the error of {device}</source>
        <translation>Fehler von {device} zurücksetzen</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Resets</source>
        <translation>Rückstellungen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Role</source>
        <translation>Rolle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role meter: what answers what the head-end sends.</source>
        <translation>Rolle Zähler: was auf die Sendungen des Head-Ends antwortet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module and passthrough.</source>
        <translation>Rolle Modul und Durchleitung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: text lines with AT next to frames. Values stand in the answers: AT+CSQ = 23.</source>
        <translation>Rolle Modul: Textzeilen mit AT neben Frames. Werte stehen in den Antworten: AT+CSQ = 23.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: the UART is deaf until the network is up.</source>
        <translation>Rolle Modul: Der UART ist taub, bis das Netzwerk steht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role of this computer</source>
        <translation>Rolle dieses Computers</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent export</source>
        <translation>Laufender Mittelwert Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent import</source>
        <translation>Laufender Mittelwert Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average export</source>
        <translation>Laufender Mittelwert Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average import</source>
        <translation>Laufender Mittelwert Bezug</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average net</source>
        <translation>Laufender Mittelwert netto</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive export</source>
        <translation>Laufender Mittelwert Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive import</source>
        <translation>Laufender Mittelwert Blindleistung Bezug</translation>
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
        <translation>SHA-256 des Zertifikats, wie READ_CERTIFICATE es zeigt; zum Einschalten nötig.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SHA-256 of the signed bytes</source>
        <translation>SHA-256 der signierten Bytes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SIM card: ICCID</source>
        <translation>SIM-Karte: ICCID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>STR (09)</source>
        <translation>STR (09)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Saturday</source>
        <translation>Samstag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Script</source>
        <translation>Skript</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Second</source>
        <translation>Sekunde</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Second answer</source>
        <translation>Zweite Antwort</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Second port</source>
        <translation>Zweiter Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server</source>
        <translation>Zweiter Zeitserver</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server, port</source>
        <translation>Zweiter Zeitserver, Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send</source>
        <translation>Senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send AT line</source>
        <translation>AT-Zeile senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send a frame</source>
        <translation>Frame senden</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Send a test event</source>
        <translation>Testereignis senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send event</source>
        <translation>Ereignis senden</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send frame</source>
        <translation>Frame senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send octets</source>
        <translation>Bytes senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send to {device}</source>
        <translation>An {device} senden</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send transparent</source>
        <translation>Transparente Daten senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send transparent data</source>
        <translation>Transparente Daten senden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Send {device} to another server</source>
        <translation>{device} an anderen Server weisen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sends what is set under Identify by asking, and takes the first digits of the answer for the identity.</source>
        <translation>Sendet, was unter Durch Fragen identifizieren eingestellt ist, und nimmt die ersten Ziffern der Antwort als Identität.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as Authorization: Bearer, never in the address.</source>
        <translation>Wird als Authorization: Bearer gesendet, nie in der Adresse.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Sent as Authorization: Bearer. Empty for a service that asks for none.</source>
        <translation>Wird als Authorization: Bearer gesendet. Leer bei einem Dienst, der keinen verlangt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as it stands here instead of a mode of the list.</source>
        <translation>Wird so gesendet, wie es hier steht, statt eines Modus der Liste.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sent in each frame, for example the signal quality 0..31 or 99. Other values than 0 are dropped by peers that compare 16 bits; the stock firmware is one.</source>
        <translation>In jedem Frame gesendet, zum Beispiel die Signalqualität 0..31 oder 99. Andere Werte als 0 verwerfen Gegenseiten, die 16 Bit vergleichen; die Serienfirmware gehört dazu.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>September</source>
        <translation>September</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Serial number</source>
        <translation>Seriennummer</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number in the record</source>
        <translation>Seriennummer im Datensatz</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number of the meter behind it</source>
        <translation>Seriennummer des Zählers dahinter</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serial port</source>
        <translation>Serielle Schnittstelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Serial port or its URL; not used by the server.</source>
        <translation>Serielle Schnittstelle oder ihre URL; vom Server nicht verwendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on</source>
        <translation>Bereitstellen auf</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on port</source>
        <translation>Bereitstellen an Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Served to the gateway from here instead, as long as the order runs.</source>
        <translation>Wird dem Gateway stattdessen von hier bereitgestellt, solange der Auftrag läuft.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server address</source>
        <translation>Serveradresse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server port</source>
        <translation>Server-Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server that modules connect to</source>
        <translation>Server, zu dem sich Module verbinden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server: sent to a module that does not log in, for example text:/?!\r\n or hex:7EA0...; its first digits are the identity. Empty: nothing is sent.</source>
        <translation>Server: Wird an ein Modul gesendet, das sich nicht anmeldet, zum Beispiel text:/?!\r\n oder hex:7EA0...; die ersten Ziffern der Antwort sind die Identität. Leer: Nichts wird gesendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Service</source>
        <translation>Versorgungsart</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set clock</source>
        <translation>Uhr stellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set date</source>
        <translation>Datum stellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set daylight saving</source>
        <translation>Sommerzeit einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set dst</source>
        <translation>Sommerzeit einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set identification type</source>
        <translation>Identifikationsart setzen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means off</source>
        <translation>Gesetzt bedeutet aus</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means on</source>
        <translation>Gesetzt bedeutet ein</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set meter parameter</source>
        <translation>Zählerparameter schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set mode</source>
        <translation>Modus einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set ntp</source>
        <translation>Zeitserver einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set parameter</source>
        <translation>Modulparameter schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set power limit</source>
        <translation>Leistungsgrenze einstellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Set server</source>
        <translation>Server setzen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the clock</source>
        <translation>Uhr stellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set the clock of {device}</source>
        <translation>Uhr von {device} stellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set the date of {device}</source>
        <translation>Datum von {device} stellen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the meter&apos;s clock</source>
        <translation>Uhr des Zählers stellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set the mode of {device}</source>
        <translation>Modus von {device} einstellen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set time</source>
        <translation>Uhrzeit stellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time servers</source>
        <translation>Zeitserver einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time zone</source>
        <translation>Zeitzone einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set timezone</source>
        <translation>Zeitzone einstellen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set tls</source>
        <translation>TLS umschalten</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sets the clock, or the time servers, and zone and daylight saving where configured.</source>
        <translation>Stellt die Uhr oder die Zeitserver sowie Zeitzone und Sommerzeit, wo konfiguriert.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Setting the clock switches NTP off in the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Das Stellen der Uhr schaltet NTP im Zähler aus. Der Zähler kann eine Einstellung verlieren, die in den ersten zwei Minuten nach dem Einschalten geschrieben wird.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shift</source>
        <translation>Verschiebung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Show only</source>
        <translation>Nur zeigen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shows the certificate and its fingerprint; compare them before switching TLS on.</source>
        <translation>Zeigt das Zertifikat und seinen Fingerabdruck; vergleichen Sie sie, bevor Sie TLS einschalten.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Sign on</source>
        <translation>Anmelden</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signal quality</source>
        <translation>Signalqualität</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signature</source>
        <translation>Signatur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signed records carry this time.</source>
        <translation>Signierte Datensätze tragen diese Zeit.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>So long after the vendor took it. Looks happen every five seconds.</source>
        <translation>So lange, nachdem der Hersteller ihn angenommen hat. Nachgesehen wird alle fünf Sekunden.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Software: for ports and serial servers that only do 8N1; the meter still sees 7E1.</source>
        <translation>Software: für Schnittstellen und serielle Server, die nur 8N1 können; der Zähler sieht weiterhin 7E1.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some firmware does not tell it.</source>
        <translation>Manche Firmware meldet es nicht.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some meters only become ready: then somebody presses the button on the meter, and the step is done again.</source>
        <translation>Manche Zähler werden nur bereit: Dann drückt jemand die Taste am Zähler, und der Schritt wird wiederholt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Somebody at the device has to provoke an error and to remove it again.</source>
        <translation>Jemand am Gerät muss einen Fehler auslösen und wieder beseitigen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Source address on this computer; empty: the system chooses.</source>
        <translation>Quelladresse auf diesem Computer; leer: das System wählt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Source of the time</source>
        <translation>Zeitquelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Stands before the number of each command at the service. Empty: mw- and a word of this workspace, so that two workspaces at one service do not meet.</source>
        <translation>Steht beim Dienst vor der Nummer jedes Befehls. Leer: mw- und ein Wort dieses Arbeitsbereichs, damit sich zwei Arbeitsbereiche an einem Dienst nicht in die Quere kommen.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start on {device}</source>
        <translation>Auf {device} starten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Start the test transaction</source>
        <translation>Testtransaktion starten</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start transaction</source>
        <translation>Transaktion starten</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Start up</source>
        <translation>Start eines Moduls vorspielen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of charge</source>
        <translation>Ladezustand</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of health</source>
        <translation>Gesundheitszustand</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State of the disconnector</source>
        <translation>Zustand des Abschaltrelais</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Status (17: ready)</source>
        <translation>Status (17: bereit)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Steps</source>
        <translation>Schritte</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Still there</source>
        <translation>Noch da</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stock firmware loses both; a meter then has to pause between frames.</source>
        <translation>Serienfirmware verliert beide; ein Zähler muss dann zwischen Frames pausieren.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop on {device}</source>
        <translation>Auf {device} beenden</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop transaction</source>
        <translation>Transaktion beenden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store directive</source>
        <translation>Direktive speichern</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store on {device}</source>
        <translation>Auf {device} speichern</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stored records</source>
        <translation>Gespeicherte Datensätze</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Subject</source>
        <translation>Inhaber</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Such as 0.1.4.0. Empty: it is shown and not judged.</source>
        <translation>Etwa 0.1.4.0. Leer: Sie wird gezeigt und nicht bewertet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Suite 0, encrypted and authenticated.</source>
        <translation>Suite 0, verschlüsselt und authentifiziert.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summary</source>
        <translation>Zusammenfassung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summer time</source>
        <translation>Sommerzeit</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sunday</source>
        <translation>Sonntag</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply</source>
        <translation>Versorgung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply is on</source>
        <translation>Versorgung ist ein</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Supply relay</source>
        <translation>Versorgungsrelais</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply voltage</source>
        <translation>Versorgungsspannung</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Switch TLS</source>
        <translation>TLS umschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Switch the driver by RTS while sending; most adapters do it by themselves.</source>
        <translation>Den Treiber beim Senden über RTS umschalten; die meisten Adapter tun das von selbst.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Switch the driver of an RS-485 adapter by RTS while sending.</source>
        <translation>Den Treiber eines RS-485-Adapters beim Senden über RTS umschalten.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Switch the supply off and on</source>
        <translation>Versorgung aus- und einschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Switches the driver while sending.</source>
        <translation>Schaltet den Treiber beim Senden um.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sync time</source>
        <translation>Uhr abgleichen</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Synchronise clock</source>
        <translation>Uhr synchronisieren</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>System title of this client</source>
        <translation>Systemtitel dieses Clients</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>TLS</source>
        <translation>TLS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>TLS certificate</source>
        <translation>TLS-Zertifikat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Take what is written</source>
        <translation>Geschriebenes übernehmen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Tampering</source>
        <translation>Manipulation</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Tap: octets as they are, with a decoded copy</source>
        <translation>Abgriff: Bytes unverändert, mit dekodierter Kopie</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tariff</source>
        <translation>Tarif</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tariff text</source>
        <translation>Tariftext</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature H</source>
        <translation>Temperatur H</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature L</source>
        <translation>Temperatur L</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Tenant</source>
        <translation>Mandant</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test event</source>
        <translation>Testereignis</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test the reset of an error</source>
        <translation>Zurücksetzen eines Fehlers testen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The 20 digits of the token; blanks and dashes do not matter.</source>
        <translation>Die 20 Ziffern des Tokens; Leerzeichen und Striche spielen keine Rolle.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The OCMF record by id or number, else the current or last one, with its verdict.</source>
        <translation>Der OCMF-Datensatz nach ID oder Nummer, sonst der aktuelle oder letzte, mit seiner Bewertung.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is charged at once. A full battery does not charge: the walk then fails, and the device is put back to AUTO.</source>
        <translation>Die Batterie wird sofort geladen. Eine volle Batterie lädt nicht: Der Rundgang scheitert dann, und das Gerät wird auf AUTO zurückgestellt.</translation>
    </message>
    <message>
        <source>The battery is charged at once. A full battery does not charge: the walk then goes on, and fails at its end, when the device is in AUTO again.</source>
        <translation type="vanished">Die Batterie wird sofort geladen. Eine volle Batterie lädt nicht: Der Rundgang geht dann weiter und scheitert am Ende, wenn das Gerät wieder in AUTO ist.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is discharged at once.</source>
        <translation>Die Batterie wird sofort entladen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The beginning of a serial number is acknowledged and removes nothing.</source>
        <translation>Der Anfang einer Seriennummer wird bestätigt und entfernt nichts.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The calendar date at the grid.</source>
        <translation>Das Kalenderdatum am Ort des Netzes.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The clock is set first. A transaction that still runs is stopped before.</source>
        <translation>Zuerst wird die Uhr gestellt. Eine noch laufende Transaktion wird vorher beendet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The connection has to be encrypted</source>
        <translation>Die Verbindung muss verschlüsselt sein</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The credit is going to be cleared</source>
        <translation>Das Guthaben wird gelöscht</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer is without power for some seconds. Make sure that nobody works on the installation.</source>
        <translation>Der Kunde ist einige Sekunden ohne Strom. Stellen Sie sicher, dass niemand an der Anlage arbeitet.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer loses power.</source>
        <translation>Der Kunde verliert die Stromversorgung.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer loses power. Whatever is found here, and also when the run is stopped, the supply is connected again.</source>
        <translation>Der Kunde verliert die Stromversorgung. Was hier auch gefunden wird, und auch wenn der Durchlauf abgebrochen wird: Die Versorgung wird wieder zugeschaltet.</translation>
    </message>
    <message>
        <source>The customer loses power. Whatever is found here, the next step connects the supply again.</source>
        <translation type="vanished">Der Kunde verliert die Stromversorgung. Was hier auch gefunden wird, der nächste Schritt schaltet die Versorgung wieder zu.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer&apos;s installation gets power. Make sure that nobody works on it.</source>
        <translation>Die Anlage des Kunden erhält Strom. Stellen Sie sicher, dass niemand daran arbeitet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched off.</source>
        <translation>Die Versorgung des Kunden wird ausgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched on; nobody may be working on the installation.</source>
        <translation>Die Versorgung des Kunden wird eingeschaltet; niemand darf an der Anlage arbeiten.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device charges or discharges at once.</source>
        <translation>Das Gerät lädt oder entlädt sofort.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is going to charge with {input.charge_power} W and to discharge with {input.discharge_power} W. Are covers closed, is the emergency stop in reach, and is nobody working on it?</source>
        <translation>Das Gerät wird mit {input.charge_power} W laden und mit {input.discharge_power} W entladen. Sind Abdeckungen geschlossen, ist der Not-Aus in Reichweite, und arbeitet niemand daran?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is held at 0 W.</source>
        <translation>Das Gerät wird bei 0 W gehalten.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is left in AUTO, also when the walk failed or was stopped.</source>
        <translation>Das Gerät wird in AUTO zurückgelassen, auch wenn der Rundgang scheiterte oder abgebrochen wurde.</translation>
    </message>
    <message>
        <source>The device is left in AUTO. The walk has passed when idle, charging and discharging were confirmed before.</source>
        <translation type="vanished">Das Gerät wird in AUTO zurückgelassen. Der Rundgang ist bestanden, wenn Leerlauf, Laden und Entladen zuvor bestätigt wurden.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>The device messaging service, with its key.</source>
        <translation>Der Dienst für Gerätenachrichten, mit seinem Schlüssel.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device shows it as Authorization: Bearer. Only a salted hash of it is kept.</source>
        <translation>Das Gerät weist ihn als Authorization: Bearer vor. Nur ein gesalzener Hash davon wird aufbewahrt.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The firmware version cannot be read over LoRaWAN.</source>
        <translation>Die Firmware-Version kann nicht über LoRaWAN gelesen werden.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The first credit that the grid gives, less what is used meanwhile.</source>
        <translation>Das erste Guthaben, das das Netz vergibt, abzüglich des inzwischen Verbrauchten.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway cannot set the clock of a meter. One that is off is set at its optical head.</source>
        <translation>Das Gateway kann die Uhr eines Zählers nicht stellen. Geht sie falsch, wird sie über den Optokopf gestellt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway checks neither format nor signature of the image, and never tells the outcome.</source>
        <translation>Das Gateway prüft weder Format noch Signatur des Images und meldet nie das Ergebnis.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway leaves this program and dials the other server, for ever and without introducing itself there. If the address is wrong, somebody has to go to it.</source>
        <translation>Das Gateway verlässt dieses Programm und wählt den anderen Server an, dauerhaft und ohne sich dort vorzustellen. Ist die Adresse falsch, muss jemand hinfahren.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway puts the meter into its index. It can be taken out again with the command Remove meter.</source>
        <translation>Das Gateway nimmt den Zähler in seinen Index auf. Mit dem Befehl Zähler entfernen lässt er sich wieder herausnehmen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway takes a request on its pull port and answers: the way back to it is open.</source>
        <translation>Das Gateway nimmt eine Anfrage an seinem Pull-Port an und antwortet: Der Rückweg zu ihm ist offen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway tells no failures of a meter: then nothing comes until the time is over.</source>
        <translation>Das Gateway meldet keine Fehler eines Zählers: Dann kommt nichts, bis die Zeit um ist.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway tells no failures of the meter: then nothing comes at all.</source>
        <translation>Das Gateway meldet keine Fehler des Zählers: Dann kommt gar nichts.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway was let in under its serial number; what it told of itself stands in the report.</source>
        <translation>Das Gateway wurde unter seiner Seriennummer eingelassen; was es über sich mitgeteilt hat, steht im Bericht.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway&apos;s clock shows {fact.device_date}; by this computer it is {now} now. Is it right?</source>
        <translation>Die Uhr des Gateways zeigt {fact.device_date}; nach diesem Computer ist es jetzt {now}. Geht sie richtig?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway&apos;s server port, mostly 8722; 0: any free one.</source>
        <translation>Der Server-Port des Gateways, meist 8722; 0: irgendein freier.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm.</source>
        <translation>Das Head-End erhält einen Alarm.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm: tell its staff before.</source>
        <translation>Das Head-End erhält einen Alarm: Informieren Sie vorher sein Personal.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The head-end relays commands</source>
        <translation>Das Head-End leitet Befehle weiter</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware does not use it.</source>
        <translation>Die bekannte Firmware verwendet es nicht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware stores directives and does not execute them.</source>
        <translation>Die bekannte Firmware speichert Direktiven, führt sie aber nicht aus.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The link is as it was</source>
        <translation>Die Verbindung ist wie zuvor</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The list is cut</source>
        <translation>Die Liste ist abgeschnitten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>The load profile; 1-0:99.1.0 is the first one.</source>
        <translation>Der Lastgang; 1-0:99.1.0 ist der erste.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The log is cut</source>
        <translation>Das Log ist abgeschnitten</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The manufacturer asks that this be set once in the life of the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Der Hersteller bittet, dies nur einmal im Leben des Zählers zu setzen. Der Zähler kann eine Einstellung verlieren, die in den ersten zwei Minuten nach dem Einschalten geschrieben wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to answer before anything is changed.</source>
        <translation>Der Zähler muss antworten, bevor etwas geändert wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to be idle and ready, as it was found.</source>
        <translation>Der Zähler muss im Leerlauf und bereit sein, wie vorgefunden.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter holds {steps.before.result.kwh_credit_available} kWh, which are lost now. May they be cleared?</source>
        <translation>Der Zähler enthält {steps.before.result.kwh_credit_available} kWh, die jetzt verloren gehen. Dürfen sie gelöscht werden?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter is back on the module</source>
        <translation>Der Zähler ist wieder am Modul</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter is busy for minutes. Read the logbook only when it is needed.</source>
        <translation>Der Zähler ist minutenlang beschäftigt. Lesen Sie das Logbuch nur, wenn es nötig ist.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter joins the network by itself; it cannot be told to.</source>
        <translation>Der Zähler tritt dem Netzwerk von selbst bei; das lässt sich nicht anweisen.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Der Zähler kann eine Einstellung verlieren, die in den ersten zwei Minuten nach dem Einschalten geschrieben wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up. Where the clock is set by hand, the time servers in the meter are switched off.</source>
        <translation>Der Zähler kann eine Einstellung verlieren, die in den ersten zwei Minuten nach dem Einschalten geschrieben wird. Wird die Uhr von Hand gestellt, werden die Zeitserver im Zähler ausgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The meter may not check what is written.</source>
        <translation>Der Zähler prüft möglicherweise nicht, was geschrieben wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter says it runs</source>
        <translation>Der Zähler meldet, dass sie läuft</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter sends its report by itself; it cannot be asked for.</source>
        <translation>Der Zähler sendet seine Meldung von selbst; sie lässt sich nicht anfordern.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. A large step may leave a gap or a double period in its load profile.</source>
        <translation>Der Zähler übernimmt die Zeit dieses Computers. Ein großer Sprung kann eine Lücke oder eine doppelte Periode in seinem Lastgang hinterlassen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. Its profiles get a gap or a double period when the clock moves far.</source>
        <translation>Der Zähler übernimmt die Zeit dieses Computers. Seine Profile bekommen eine Lücke oder eine doppelte Periode, wenn die Uhr weit verstellt wird.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>The meter&apos;s certificate as PEM. When it is filled in, the connection uses TLS and accepts only it.</source>
        <translation>Das Zertifikat des Zählers als PEM. Ist es ausgefüllt, verwendet die Verbindung TLS und nimmt nur dieses an.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>Es wird angenommen, dass die Uhr des Zählers die Ortszeit dieses Computers zeigt.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>The meter&apos;s gateway does this; choose it in the tree.</source>
        <translation>Das tut das Gateway des Zählers; wählen Sie es im Baum.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The octets go to the meter as they are; a write among them is carried out.</source>
        <translation>Die Bytes gehen unverändert an den Zähler; ein Schreibbefehl darunter wird ausgeführt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The parameter id that stands before the function command word; which one real meters use is not known.</source>
        <translation>Die Parameter-ID vor dem Funktionsbefehlswort; welche echte Zähler verwenden, ist nicht bekannt.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The port then speaks TLS only, or no TLS at all. Without the right certificate the meter cannot be reached any more.</source>
        <translation>Der Port spricht danach nur TLS oder gar kein TLS. Ohne das richtige Zertifikat ist der Zähler nicht mehr erreichbar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The protocol has no command that sets the clock of a gateway; one that is off is a case for its maker.</source>
        <translation>Das Protokoll hat keinen Befehl, der die Uhr eines Gateways stellt; geht sie falsch, ist das ein Fall für den Hersteller.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds three voltages</source>
        <translation>Die Auslesung enthält drei Spannungen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds voltages</source>
        <translation>Die Auslesung enthält Spannungen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout is cut</source>
        <translation>Die Auslesung ist abgeschnitten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The reference head-end ignores what a dashboard sends.</source>
        <translation>Das Referenz-Head-End ignoriert, was ein Dashboard sendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The register is read before and after. Turkish meters lock writing for 6 h after three wrong passwords.</source>
        <translation>Das Register wird vorher und nachher gelesen. Türkische Zähler sperren das Schreiben nach drei falschen Passwörtern für 6 h.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The running transaction, else the last; or one by its id or number.</source>
        <translation>Die laufende Transaktion, sonst die letzte; oder eine nach ID oder Nummer.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same meter answers, and its register has not gone backwards.</source>
        <translation>Derselbe Zähler antwortet, und sein Register ist nicht zurückgelaufen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same module answers.</source>
        <translation>Dasselbe Modul antwortet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the meter has to be ready and idle.</source>
        <translation>Die Seriennummer muss die für dieses Gerät eingetragene sein, und der Zähler muss bereit und im Leerlauf sein.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device, and the readout whole.</source>
        <translation type="vanished">Die Seriennummer muss die für dieses Gerät eingetragene und die Auslesung vollständig sein.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the readout whole. The next steps judge what it holds; one of them that is done again reads it anew.</source>
        <translation>Die Seriennummer muss die für dieses Gerät eingetragene und die Auslesung vollständig sein. Die nächsten Schritte bewerten ihren Inhalt; wird einer davon wiederholt, liest er sie neu.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device.</source>
        <translation type="vanished">Die Seriennummer muss die für dieses Gerät eingetragene sein.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device. The next steps judge what was read here; one of them that is done again reads it anew.</source>
        <translation>Die Seriennummer muss die für dieses Gerät eingetragene sein. Die nächsten Schritte bewerten, was hier gelesen wurde; wird einer davon wiederholt, liest er es neu.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>The service signs its events with it. May be empty only while listening on this computer alone.</source>
        <translation>Der Dienst signiert damit seine Ereignisse. Darf nur leer sein, wenn allein auf diesem Computer gelauscht wird.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The session is closed, and the same meter answers a new sign-on.</source>
        <translation>Die Sitzung wird geschlossen, und derselbe Zähler antwortet auf eine neue Anmeldung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware loses two frames that arrive in one read.</source>
        <translation>Die Serienfirmware verliert zwei Frames, die in einem Lesevorgang ankommen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware takes an orderly close for data: it spins at full load and never connects again until it is restarted. Close with a reset (DROP_MODULE) unless that is what you test.</source>
        <translation>Die Serienfirmware hält ein geordnetes Schließen für Daten: Sie dreht sich unter Volllast im Kreis und verbindet sich erst nach einem Neustart wieder. Schließen Sie mit einem Reset (DROP_MODULE), außer Sie testen genau das.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched off.</source>
        <translation>Die Versorgung hinter diesem Zähler wird ausgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched on.</source>
        <translation>Die Versorgung hinter diesem Zähler wird eingeschaltet.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The supply went off and on again</source>
        <translation>Die Versorgung ging aus und wieder an</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time is sent as it is entered here: every wait and every retry makes it late.</source>
        <translation>Die Zeit wird so gesendet, wie sie hier eingegeben ist: Jedes Warten und jeder weitere Versuch verspätet sie.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time of day at the grid.</source>
        <translation>Die Uhrzeit am Ort des Netzes.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction after two minutes</source>
        <translation>Die Transaktion nach zwei Minuten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction ends for good and its record is signed.</source>
        <translation>Die Transaktion endet endgültig, und ihr Datensatz wird signiert.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The transaction ends for good.</source>
        <translation>Die Transaktion endet endgültig.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction is running</source>
        <translation>Die Transaktion läuft</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The vendor counts every token for credit as a sale.</source>
        <translation>Der Hersteller zählt jeden Guthaben-Token als Verkauf.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Then it is broken off.</source>
        <translation>Danach wird sie abgebrochen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Then the association ends, so that others may read the meter.</source>
        <translation>Dann endet die Assoziation, damit andere den Zähler lesen können.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Third</source>
        <translation>Dritter</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>This certificate is pinned</source>
        <translation>Dieses Zertifikat ist festgelegt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>This computer&apos;s address that the device reaches; 127.0.0.1 takes local ones only. All devices with the same address and port share one hub.</source>
        <translation>Adresse dieses Computers, die das Gerät erreicht; 127.0.0.1 nimmt nur lokale an. Alle Geräte mit gleicher Adresse und gleichem Port teilen sich einen Hub.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>This connection only listens; choose another mode in it.</source>
        <translation>Diese Verbindung lauscht nur; wählen Sie darin einen anderen Modus.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the meter; choose a role that has it.</source>
        <translation>Diese Verbindung spielt den Zähler; wählen Sie eine Rolle, die dies hat.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module between TCP and a line; choose a role that has it.</source>
        <translation>Diese Verbindung spielt das Modul zwischen TCP und einer Leitung; wählen Sie eine Rolle, die dies hat.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module; choose a role that has it.</source>
        <translation>Diese Verbindung spielt das Modul; wählen Sie eine Rolle, die dies hat.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a module below this server.</source>
        <translation>Diese Verbindung spielt den Server; wählen Sie ein Modul unter diesem Server.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a role that has it.</source>
        <translation>Diese Verbindung spielt den Server; wählen Sie eine Rolle, die dies hat.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>This is a concentrator; only its state is watched.</source>
        <translation>Dies ist ein Konzentrator; nur sein Zustand wird überwacht.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>This is a gateway; choose one of its meters in the tree.</source>
        <translation>Dies ist ein Gateway; wählen Sie im Baum einen seiner Zähler.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>This is a gateway; only its state is watched.</source>
        <translation>Dies ist ein Gateway; nur sein Zustand wird überwacht.</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>This is a head-end; it does no command of a meter.</source>
        <translation>Dies ist ein Head-End; es führt keinen Zählerbefehl aus.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter cannot limit the power; the charger does.</source>
        <translation>Dieser Zähler kann die Leistung nicht begrenzen; das tut das Ladegerät.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter holds no credit.</source>
        <translation>Dieser Zähler enthält kein Guthaben.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter measures and signs; it has no relay. The charger switches the power.</source>
        <translation>Dieser Zähler misst und signiert; er hat kein Relais. Das Ladegerät schaltet die Leistung.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>This service also sets the meter&apos;s clock to midnight (00:00:00).</source>
        <translation>Dieser Dienst stellt die Uhr des Zählers auch auf Mitternacht (00:00:00).</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Three accounts at the vendor&apos;s service.</source>
        <translation>Drei Konten beim Dienst des Herstellers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Three cycles of the device at least.</source>
        <translation>Mindestens drei Zyklen des Geräts.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Three letters.</source>
        <translation>Drei Buchstaben.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Three phases</source>
        <translation>Drei Phasen</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Through ChirpStack, with an API token.</source>
        <translation>Über ChirpStack, mit einem API-Token.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Thursday</source>
        <translation>Donnerstag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time after</source>
        <translation>Zeit nachher</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time before</source>
        <translation>Zeit vorher</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between live values</source>
        <translation>Zeit zwischen Live-Werten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between them</source>
        <translation>Zeit dazwischen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time of the meter</source>
        <translation>Zeit des Zählers</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Time of the reset</source>
        <translation>Zeit der Rückstellung</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time status</source>
        <translation>Zeitstatus</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Time zone</source>
        <translation>Zeitzone</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time zone of the meter</source>
        <translation>Zeitzone des Zählers</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Times</source>
        <translation>Zeiten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>To</source>
        <translation>Bis</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>To the head-end and back</source>
        <translation>Zum Head-End und zurück</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>To the meter through the module, in writes of at most the set size: one write is one frame there.</source>
        <translation>Durch das Modul zum Zähler, in Schreibvorgängen von höchstens der eingestellten Größe: Ein Schreibvorgang ist dort ein Frame.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Token</source>
        <translation>Token</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of the device</source>
        <translation>Token des Geräts</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of this dashboard</source>
        <translation>Token dieses Dashboards</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Token plugin</source>
        <translation>Token-Plugin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Token service</source>
        <translation>Token-Dienst</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up</source>
        <translation>Aufladen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up {device}</source>
        <translation>{device} aufladen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Transaction</source>
        <translation>Transaktion</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to connect, beyond the first</source>
        <translation>Verbindungsversuche nach dem ersten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to start or stop, beyond the first</source>
        <translation>Start- oder Stoppversuche nach dem ersten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Trust in the key</source>
        <translation>Vertrauen in den Schlüssel</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Trusted certificate</source>
        <translation>Vertrauenswürdiges Zertifikat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Try the usual rates and formats, two times each; what works is entered in the connection.</source>
        <translation>Die üblichen Baudraten und Formate versuchen, je zweimal; was funktioniert, wird in die Verbindung eingetragen.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tuesday</source>
        <translation>Dienstag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish (R2, W2)</source>
        <translation>türkisch (R2, W2)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 2</source>
        <translation>türkische Generation 2</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 3</source>
        <translation>türkische Generation 3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off</source>
        <translation>Ausschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off {device}</source>
        <translation>{device} ausschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on</source>
        <translation>Einschalten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on {device}</source>
        <translation>{device} einschalten</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Two frames in one write</source>
        <translation>Zwei Frames in einem Schreibvorgang</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Two frames in one write. The stock firmware loses both.</source>
        <translation>Zwei Frames in einem Schreibvorgang. Die Serienfirmware verliert beide.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Type</source>
        <translation>Typ</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Type of its parameter</source>
        <translation>Typ ihres Parameters</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>U(L2) lags U(L1) by 120° and U(L3) by 240° where the field turns clockwise; 240° and 120° are two phases swapped.</source>
        <translation>U(L2) eilt U(L1) um 120° nach und U(L3) um 240°, wenn das Feld rechts dreht; 240° und 120° bedeuten zwei vertauschte Phasen.</translation>
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
        <translation>UTC minus Ortszeit (Standard)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for MQTT and for registering meters.</source>
        <translation>UUID; nötig für MQTT und zum Registrieren von Zählern.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for registering meters.</source>
        <translation>UUID; nötig zum Registrieren von Zählern.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for the gateways&apos; state when the API token belongs to a tenant.</source>
        <translation>UUID; nötig für den Zustand der Gateways, wenn der API-Token zu einem Mandanten gehört.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>UV</source>
        <translation>UV</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Until the first character of an answer.</source>
        <translation>Bis zum ersten Zeichen einer Antwort.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Unverified on hardware; on and off from a credit read are safe either way.</source>
        <translation>Nicht an Hardware nachgewiesen; Ein und Aus aus einer Guthabenlesung sind in jedem Fall sicher.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Up to 15 characters, as on the meter.</source>
        <translation>Bis zu 15 Zeichen, wie auf dem Zähler.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Up to 250 characters; only newer firmware (v2) takes it.</source>
        <translation>Bis zu 250 Zeichen; nur neuere Firmware (v2) nimmt ihn an.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 300 W.</source>
        <translation>Bis zur dokumentierten Grenze von 300 W.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 700 W.</source>
        <translation>Bis zur dokumentierten Grenze von 700 W.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update firmware</source>
        <translation>Firmware aktualisieren</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update {device}</source>
        <translation>{device} aktualisieren</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for maintenance</source>
        <translation>Benutzer für Wartung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for sales</source>
        <translation>Benutzer für Verkäufe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for tasks</source>
        <translation>Benutzer für Aufträge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>VDEW (R5, W5)</source>
        <translation>VDEW (R5, W5)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Valid for</source>
        <translation>Gültig für</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid from</source>
        <translation>Gültig ab</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid until</source>
        <translation>Gültig bis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Voltage</source>
        <translation>Spannung</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L1</source>
        <translation>Spannung L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L2</source>
        <translation>Spannung L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L3</source>
        <translation>Spannung L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage by your own instrument</source>
        <translation>Spannung mit eigenem Messgerät</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of each phase</source>
        <translation>Spannung jeder Phase</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase A</source>
        <translation>Spannung Phase A</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase B</source>
        <translation>Spannung Phase B</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase C</source>
        <translation>Spannung Phase C</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage reversed</source>
        <translation>Spannung verpolt</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages</source>
        <translation>Spannungen</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages of the other phases</source>
        <translation>Spannungen der anderen Phasen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait</source>
        <translation>Warten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a late result</source>
        <translation>Warten auf spätes Ergebnis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a load profile</source>
        <translation>Warten auf Lastgang</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for a message</source>
        <translation>Warten auf Nachricht</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a readout</source>
        <translation>Warten auf Auslesung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Wait for an answer</source>
        <translation>Warten auf Antwort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for data</source>
        <translation>Warten auf Daten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wake-up</source>
        <translation>Aufwecken</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Warn from</source>
        <translation>Warnen ab</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Watched as a dashboard does, by address and token.</source>
        <translation>Beobachtet wie von einem Dashboard, über Adresse und Token.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Webhook secret</source>
        <translation>Webhook-Geheimnis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Webhook token</source>
        <translation>Webhook-Token</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Wednesday</source>
        <translation>Mittwoch</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What E2 does is up to the manufacturer; it may reset the meter.</source>
        <translation>Was E2 tut, bestimmt der Hersteller; es kann den Zähler zurücksetzen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What ends every conversation.</source>
        <translation>Was jedes Gespräch beendet.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What happens between the two sides.</source>
        <translation>Was zwischen den beiden Seiten geschieht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What is said of a parameter that does not stand in the answers.</source>
        <translation>Was zu einem Parameter gesagt wird, der nicht in den Antworten steht.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What stands in the brackets of the request; mostly nothing.</source>
        <translation>Was in den Klammern der Anfrage steht; meist nichts.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>What the customer has bought and not used is lost.</source>
        <translation>Was der Kunde gekauft und nicht verbraucht hat, ist verloren.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>What the meter holds, and what may be read.</source>
        <translation>Was der Zähler enthält und was gelesen werden darf.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>What the service counts: queues, finished commands, events, and what it ignored.</source>
        <translation>Was der Dienst zählt: Warteschlangen, beendete Befehle, Ereignisse und was er ignoriert hat.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What the stock firmware does is quectel.</source>
        <translation>Die Serienfirmware verwendet quectel.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Whatever stands there is sent, right or wrong.</source>
        <translation>Was dort steht, wird gesendet, ob richtig oder falsch.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where it is off, start again with setting the clock allowed, or set it by hand and do the step again.</source>
        <translation>Geht sie falsch, beginnen Sie erneut mit erlaubtem Stellen der Uhr, oder stellen Sie sie von Hand und wiederholen Sie den Schritt.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where this fails, compare the fingerprint, switch TLS on with the command Switch TLS, pin the certificate in the connection, and do the step again. This flow does not switch TLS by itself.</source>
        <translation>Schlägt dies fehl, vergleichen Sie den Fingerabdruck, schalten Sie TLS mit dem Befehl TLS umschalten ein, legen Sie das Zertifikat in der Verbindung fest und wiederholen Sie den Schritt. Dieser Ablauf schaltet TLS nicht selbst um.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Whether the gateway keeps what it has told once is up to its storage.</source>
        <translation>Ob das Gateway einmal Gemeldetes behält, hängt von seinem Speicher ab.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who is connected, with counters.</source>
        <translation>Wer verbunden ist, mit Zählständen.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Who the module is, its signal, its access point and, where it is wanted, the way to the head-end and back. For a connection with the role Meter. Stock firmware does not answer on channels 23 and 24: it fails at the first step.</source>
        <translation>Wer das Modul ist, sein Signal, sein Zugangspunkt und, wo gewünscht, der Weg zum Head-End und zurück. Für eine Verbindung mit der Rolle Zähler. Serienfirmware antwortet nicht auf den Kanälen 23 und 24: Sie scheitert am ersten Schritt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who the program plays on the link.</source>
        <translation>Wen das Programm auf der Verbindung spielt.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Wi-Fi strength</source>
        <translation>WLAN-Stärke</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>With * every directive on the gateway is deleted.</source>
        <translation>Mit * werden alle Direktiven auf dem Gateway gelöscht.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>With a zone; empty: this computer&apos;s time now.</source>
        <translation>Mit Zeitzone; leer: die jetzige Zeit dieses Computers.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>With a zone; empty: this computer&apos;s time when it is sent.</source>
        <translation>Mit Zeitzone; leer: die Zeit dieses Computers beim Senden.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the antenna and the cabinet as they stay: close the door before.</source>
        <translation>Mit Antenne und Schrank im Endzustand: Schließen Sie vorher die Tür.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the meter&apos;s own certificate pinned in the connection.</source>
        <translation>Mit dem eigenen, in der Verbindung festgelegten Zertifikat des Zählers.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Wrapper (TCP)</source>
        <translation>Wrapper (TCP)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Write attribute</source>
        <translation>Attribut schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write meter parameter</source>
        <translation>Zählerparameter schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write module parameter</source>
        <translation>Modulparameter schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write register</source>
        <translation>Register schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write to {device}</source>
        <translation>Auf {device} schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write with</source>
        <translation>Schreiben mit</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Year</source>
        <translation>Jahr</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>addresses of hosts and network cards</source>
        <translation>Adressen von Hosts und Netzwerkkarten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>after a sign-on at 300 Bd (mode E)</source>
        <translation>nach Anmeldung mit 300 Bd (Modus E)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>as short as possible</source>
        <translation>so kurz wie möglich</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the connection</source>
        <translation>wie die Verbindung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as the meter says</source>
        <translation>wie der Zähler angibt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the parameter has it, else STR</source>
        <translation>wie beim Parameter, sonst STR</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as usual</source>
        <translation>wie üblich</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>at once</source>
        <translation>sofort</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>auto: begin with quectel and follow the peer</source>
        <translation>auto: mit quectel beginnen und der Gegenseite folgen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>battery meter</source>
        <translation>Batteriezähler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>by service (glo)</source>
        <translation>je Dienst (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>by the meter</source>
        <translation>nach dem Zähler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>changed parameters (P.99)</source>
        <translation>geänderte Parameter (P.99)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>customer and order references</source>
        <translation>Kunden- und Auftragskennzeichen</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>data</source>
        <translation>Daten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>date-time (19)</source>
        <translation>Datum und Uhrzeit (19)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>demand register</source>
        <translation>Mittelwertregister</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>enter its plugin at the head-end (attribute plugin), for example calin-chirpstack</source>
        <translation>geben Sie sein Plugin am Head-End ein (Attribut plugin), zum Beispiel calin-chirpstack</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>essential (HPS)</source>
        <translation>Grundversorgung (HPS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>events (P.98)</source>
        <translation>Ereignisse (P.98)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>everything</source>
        <translation>alles</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>extended register</source>
        <translation>erweitertes Register</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>find out</source>
        <translation>herausfinden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>for writes only</source>
        <translation>nur zum Schreiben</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>ftp://user:password@192.168.1.5:21/path/file.bin</source>
        <translation>ftp://user:password@192.168.1.5:21/path/file.bin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>full (FS)</source>
        <translation>Vollversorgung (FS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>general (glo)</source>
        <translation>allgemein (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>half a frame</source>
        <translation>halber Frame</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>heat meter (UH50, T550)</source>
        <translation>Wärmezähler (UH50, T550)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>history</source>
        <translation>Historie</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>keys</source>
        <translation>Schlüssel</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>local time minus UTC</source>
        <translation>Ortszeit minus UTC</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>manufacturer&apos;s own (HLS, mechanism 2)</source>
        <translation>herstellereigen (HLS, Mechanismus 2)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of devices and people</source>
        <translation>Namen von Geräten und Personen</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of sites and grids, and other places</source>
        <translation>Namen von Standorten und Netzen sowie anderen Orten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>national practice</source>
        <translation>landesüblicher Praxis</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>no closing flag</source>
        <translation>kein Endeflag</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>one</source>
        <translation>eine</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>outages</source>
        <translation>Ausfälle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>password (LLS)</source>
        <translation>Passwort (LLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>power quality</source>
        <translation>Spannungsqualität</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>public domain</source>
        <translation>gemeinfrei</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>quectel: length, no stuffing, FCS high octet first</source>
        <translation>quectel: Länge, kein Stuffing, höheres FCS-Byte zuerst</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw text</source>
        <translation>Rohtext</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw, in hex</source>
        <translation>roh, in Hex</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>register</source>
        <translation>Register</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>rfc1662: octet stuffing, FCS low octet first</source>
        <translation>rfc1662: Byte-Stuffing, niedrigeres FCS-Byte zuerst</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>see its text</source>
        <translation>siehe Lizenztext</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>serial numbers of meters, modules and SIM cards</source>
        <translation>Seriennummern von Zählern, Modulen und SIM-Karten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>short readout</source>
        <translation>kurze Auslesung</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard</source>
        <translation>Standard</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard (R1, W1)</source>
        <translation>Standard (R1, W1)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>the port</source>
        <translation>die Schnittstelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>three</source>
        <translation>drei</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>tokens of 20 digits</source>
        <translation>Token mit 20 Ziffern</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two GET requests</source>
        <translation>zwei GET-Anfragen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two transparent payloads</source>
        <translation>zweimal transparente Nutzdaten</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>warnings</source>
        <translation>Warnungen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong FCS</source>
        <translation>falsche FCS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong length</source>
        <translation>falsche Länge</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>ws://host:port or wss://host:port, without user and query.</source>
        <translation>ws://host:port oder wss://host:port, ohne Benutzer und Query.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>{device.name} says {fact.state} in mode {fact.mode}. Which battery voltage do its live values show?</source>
        <translation>{device.name} meldet {fact.state} im Modus {fact.mode}. Welche Batteriespannung zeigen seine Live-Werte?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>{device_id} stands for the device; some head-ends want /ws/device/{device_id}.</source>
        <translation>{device_id} steht für das Gerät; manche Head-Ends wollen /ws/device/{device_id}.</translation>
    </message>
    <message>
        <location filename="../../ui/model_words.py"/>
        <source>{what}, tariff {number}</source>
        <translation>{what}, Tarif {number}</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>±HH:MM from -11:00 to +14:00</source>
        <translation>±HH:MM von -11:00 bis +14:00</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>±HH:MM from -11:00 to +14:00; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>±HH:MM von -11:00 bis +14:00; leer: Die eigene Einstellung des Zählers bleibt.</translation>
    </message>
</context>
<context>
    <name>NoteDialog</name>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add a note</source>
        <translation>Notiz hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add the note</source>
        <translation>Notiz hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave as it was</source>
        <translation>So lassen, wie es war</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave without adding</source>
        <translation>Ohne Hinzufügen verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note</source>
        <translation>Notiz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must be at most {most} characters, not {count}.</source>
        <translation>Die Notiz darf höchstens {most} Zeichen haben, nicht {count}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must not be empty.</source>
        <translation>Die Notiz darf nicht leer sein.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Remove the note</source>
        <translation>Notiz entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Save the note</source>
        <translation>Notiz speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Still needed: a text.</source>
        <translation>Noch nötig: ein Text.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>What you saw or did. Ctrl+Enter keeps it.</source>
        <translation>Was Sie gesehen oder getan haben. Strg+Enter speichert.</translation>
    </message>
</context>
<context>
    <name>NoticeBar</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Dismiss</source>
        <translation>Ausblenden</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Notice</source>
        <translation>Hinweis</translation>
    </message>
</context>
<context>
    <name>Objects</name>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active absolute</source>
        <translation>Wirkleistung Betrag</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active export</source>
        <translation>Wirkleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active import</source>
        <translation>Wirkleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active net</source>
        <translation>Wirkleistung netto</translation>
    </message>
    <message>
        <source>Active {what}</source>
        <translation type="vanished">Wirkleistung {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Angles</source>
        <translation>Winkel</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent export</source>
        <translation>Scheinleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent import</source>
        <translation>Scheinleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Association</source>
        <translation>Assoziation</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Clock</source>
        <translation>Uhr</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cold water</source>
        <translation>Kaltwasser</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cooling</source>
        <translation>Kälte</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Country specific</source>
        <translation>Länderspezifisch</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Errors</source>
        <translation>Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Firmware image</source>
        <translation>Firmware-Image</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Gas</source>
        <translation>Gas</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General</source>
        <translation>Allgemein</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General and identification</source>
        <translation>Allgemeines und Identifikation</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>HDLC setup</source>
        <translation>HDLC-Einrichtung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat</source>
        <translation>Wärme</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat cost allocator</source>
        <translation>Heizkostenverteiler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Hot water</source>
        <translation>Warmwasser</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Limiter</source>
        <translation>Begrenzer</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Lists</source>
        <translation>Listen</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Logical device name</source>
        <translation>Name des logischen Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Modem</source>
        <translation>Modem</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Optical port</source>
        <translation>Optische Schnittstelle</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other medium</source>
        <translation>Anderes Medium</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other names</source>
        <translation>Andere Namen</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles</source>
        <translation>Profile</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles and logs</source>
        <translation>Profile und Logs</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive export</source>
        <translation>Blindleistung Lieferung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive import</source>
        <translation>Blindleistung Bezug</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant I</source>
        <translation>Blindleistung Quadrant I</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant II</source>
        <translation>Blindleistung Quadrant II</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant III</source>
        <translation>Blindleistung Quadrant III</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant IV</source>
        <translation>Blindleistung Quadrant IV</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register activation</source>
        <translation>Registeraktivierung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register monitoring</source>
        <translation>Registerüberwachung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>SAP assignment</source>
        <translation>SAP-Zuordnung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Schedule</source>
        <translation>Zeitplan</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Scripts</source>
        <translation>Skripte</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Security</source>
        <translation>Sicherheit</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Service entries</source>
        <translation>Serviceeinträge</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Single actions</source>
        <translation>Einzelaktionen</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Special days</source>
        <translation>Sondertage</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Standard readouts</source>
        <translation>Standardauslesungen</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>TCP, IP and network setup</source>
        <translation>TCP-, IP- und Netzwerkeinrichtung</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Tariff calendar</source>
        <translation>Tarifkalender</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/objects.py"/>
        <source>{count} entries</source>
        <translation>
            <numerusform>{count} Eintrag</numerusform>
            <numerusform>{count} Einträge</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>{what} without a known name</source>
        <translation>{what} ohne bekannten Namen</translation>
    </message>
</context>
<context>
    <name>ObjectsPanel</name>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By OBIS code</source>
        <translation>Nach OBIS-Code</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By class</source>
        <translation>Nach Klasse</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Choose an attribute to read it.</source>
        <translation>Wählen Sie ein Attribut, um es zu lesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Class or access</source>
        <translation>Klasse oder Zugriff</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Group the objects by</source>
        <translation>Objekte gruppieren nach</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Looking for the object list of {name}…</source>
        <translation>Die Objektliste von {name} wird gesucht…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see its objects.</source>
        <translation>Kein Zähler gewählt.
Wählen Sie links im Baum einen, um seine Objekte zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Not read yet. Double-click the attribute, or press Read.</source>
        <translation>Noch nicht gelesen. Doppelklicken Sie auf das Attribut, oder drücken Sie Lesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Nichts wurde gesendet. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects</source>
        <translation>Objekte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects of the meter</source>
        <translation>Objekte des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Octets</source>
        <translation>Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read</source>
        <translation>Lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read at</source>
        <translation>Gelesen um</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read list again</source>
        <translation>Liste neu lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read object list</source>
        <translation>Objektliste lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Search objects</source>
        <translation>Objekte suchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Show its command</source>
        <translation>Seinen Befehl zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The meter does not let this client read this attribute.</source>
        <translation>Der Zähler erlaubt diesem Client nicht, dieses Attribut zu lesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list could not be read. {why}</source>
        <translation>Die Objektliste konnte nicht gelesen werden. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list is asked for already.</source>
        <translation>Die Objektliste ist bereits angefordert.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} has not been read yet.</source>
        <translation>Die Objektliste von {name} wurde noch nicht gelesen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} is asked for: {status}. {why}</source>
        <translation>Die Objektliste von {name} wird angefordert: {status}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Type</source>
        <translation>Typ</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value of the attribute</source>
        <translation>Wert des Attributs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>method {number}  {name}</source>
        <translation>Methode {number}  {name}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/objects.py"/>
        <source>{count} objects, list of {time} {zone}</source>
        <translation>
            <numerusform>{count} Objekt, Liste vom {time} {zone}</numerusform>
            <numerusform>{count} Objekte, Liste vom {time} {zone}</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{found} of {count} objects</source>
        <translation>{found} von {count} Objekten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} has no object list. Meters that speak DLMS/COSEM have one.</source>
        <translation>{name} hat keine Objektliste. Zähler, die DLMS/COSEM sprechen, haben eine.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} told of no object. Read the list again, or connect with another client address.</source>
        <translation>{name} hat kein Objekt genannt. Lesen Sie die Liste erneut, oder verbinden Sie sich mit einer anderen Client-Adresse.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name}, version {version}</source>
        <translation>{name}, Version {version}</translation>
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
        <translation>Es wurde ausgeführt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>It was not done</source>
        <translation>Es wurde nicht ausgeführt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Leave it open</source>
        <translation>Offen lassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>No read shows it. Look at the meter, then say what you see; it stays in the log.</source>
        <translation>Kein Lesen zeigt es. Sehen Sie am Zähler nach, und geben Sie an, was Sie sehen; es bleibt im Log.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Say what {device} shows</source>
        <translation>Angeben, was {device} zeigt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>What the meter shows</source>
        <translation>Was der Zähler zeigt</translation>
    </message>
</context>
<context>
    <name>ParamField</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Choose…</source>
        <translation>Auswählen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Now</source>
        <translation>Jetzt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at least {low}{unit}</source>
        <translation>mindestens {low}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {count} bytes</source>
        <translation>höchstens {count} Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {high}{unit}</source>
        <translation>höchstens {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>yes</source>
        <translation>ja</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{low} to {high}{unit}</source>
        <translation>{low} bis {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{title} (optional)</source>
        <translation>{title} (optional)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– choose –</source>
        <translation>– wählen –</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– none –</source>
        <translation>– keine –</translation>
    </message>
</context>
<context>
    <name>PersonsCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A note is needed here: write what you saw.</source>
        <translation>Hier ist eine Notiz nötig: Schreiben Sie, was Sie gesehen haben.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed here: drop it on this page, or choose its file.</source>
        <translation>Hier ist ein Foto nötig: Legen Sie es auf dieser Seite ab oder wählen Sie seine Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed: drop it here, or choose its file.</source>
        <translation>Ein Foto ist nötig: Legen Sie es hier ab oder wählen Sie seine Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo may help: drop it here, or choose its file.</source>
        <translation>Ein Foto kann helfen: Legen Sie es hier ab oder wählen Sie seine Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo</source>
        <translation>Foto hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo…</source>
        <translation>Foto hinzufügen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer no</source>
        <translation>Mit Nein antworten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer yes</source>
        <translation>Mit Ja antworten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Keep the answer</source>
        <translation>Antwort behalten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (needed)</source>
        <translation>Notiz (nötig)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (optional)</source>
        <translation>Notiz (optional)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Pictures ({pattern})</source>
        <translation>Bilder ({pattern})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Remove the photo</source>
        <translation>Foto entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{n} photos. Open one to see it large.</source>
        <translation>{n} Fotos. Öffnen Sie eines, um es groß zu sehen.</translation>
    </message>
</context>
<context>
    <name>PhasorDiagram</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor diagram</source>
        <translation>Zeigerdiagramm</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>inner ring {size} A</source>
        <translation>innerer Ring {size} A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>outer ring {size} V</source>
        <translation>äußerer Ring {size} V</translation>
    </message>
</context>
<context>
    <name>PhasorView</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Angle</source>
        <translation>Winkel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Behind U1</source>
        <translation>Nach U1</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor</source>
        <translation>Zeiger</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>To its voltage</source>
        <translation>Zur eigenen Spannung</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Values of the phasors</source>
        <translation>Werte der Zeiger</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>What the phasors say</source>
        <translation>Was die Zeiger aussagen</translation>
    </message>
</context>
<context>
    <name>Phasors</name>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No rotating field: the voltages are not 120° apart. Look at the wiring.</source>
        <translation>Kein Drehfeld: Die Spannungen liegen nicht 120° auseinander. Prüfen Sie die Verdrahtung.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No voltage on {names}: nothing is drawn for it.</source>
        <translation>Keine Spannung an {names}: Dafür wird nichts gezeichnet.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not drawn, because the current or its angle is not in the readout: {names}.</source>
        <translation>Nicht gezeichnet, weil der Strom oder sein Winkel nicht in der Auslesung steht: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not in the readout: {names}.</source>
        <translation>Nicht in der Auslesung: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>One phase only.</source>
        <translation>Nur eine Phase.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L2-L3 (right).</source>
        <translation>Drehfeld L1-L2-L3 (rechts).</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L3-L2 (left): two phases are exchanged.</source>
        <translation>Drehfeld L1-L3-L2 (links): Zwei Phasen sind vertauscht.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The meter gives no angle between the voltages: 120° from phase to phase is assumed for {names}.</source>
        <translation>Der Zähler gibt keinen Winkel zwischen den Spannungen an: Für {names} werden 120° von Phase zu Phase angenommen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The rotating field is not known: not all its angles were measured.</source>
        <translation>Das Drehfeld ist unbekannt: Nicht alle seine Winkel wurden gemessen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Whether the current lags or leads is not told for {names}: it is drawn lagging, as with motors and coils.</source>
        <translation>Ob der Strom nach- oder voreilt, ist für {names} nicht angegeben: Er wird nacheilend gezeichnet, wie bei Motoren und Spulen.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>assumed 120°</source>
        <translation>120° angenommen</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>from the power factor</source>
        <translation>aus dem Leistungsfaktor</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>measured</source>
        <translation>gemessen</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>with U{n}</source>
        <translation>in Phase mit U{n}</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° before U{n}</source>
        <translation>{angle}° vor U{n}</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U1</source>
        <translation>{angle}° vor U1</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U{n}</source>
        <translation>{angle}° nach U{n}</translation>
    </message>
</context>
<context>
    <name>PictureList</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Photos</source>
        <translation>Fotos</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be shown here.</source>
        <translation>{name} kann hier nicht gezeigt werden.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name}, {size} kB</source>
        <translation>{name}, {size} kB</translation>
    </message>
</context>
<context>
    <name>PlanEditor</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Before it can start: {first}</source>
        <translation>Vor dem Start: {first}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Before it can start: {first} And {count} more.</source>
        <translation>Vor dem Start: {first} Und {count} weitere.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Limits</source>
        <translation>Grenzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One repeat</source>
        <translation>Eine Wiederholung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One thing to know before the start</source>
        <translation>Ein Hinweis vor dem Start</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Start the test</source>
        <translation>Prüfung starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>To know before the start</source>
        <translation>Vor dem Start zu wissen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What is known of the reference</source>
        <translation>Was über die Referenz bekannt ist</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What to look at first</source>
        <translation>Was zuerst zu prüfen ist</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{count} things to know before the start</source>
        <translation>{count} Hinweise vor dem Start</translation>
    </message>
</context>
<context>
    <name>PointsTable</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A copy of the chosen one, below it (Ctrl+Return).</source>
        <translation>Eine Kopie des gewählten, darunter (Strg+Return).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Add load point</source>
        <translation>Lastpunkt hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points</source>
        <translation>Lastpunkte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Put back what was removed</source>
        <translation>Entferntes zurückholen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Remove load point</source>
        <translation>Lastpunkt entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen ones (Del).</source>
        <translation>Die gewählten (Entf).</translation>
    </message>
</context>
<context>
    <name>PortPicker</name>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>A port, or socket://host:port or rfc2217://host:port</source>
        <translation>Eine Schnittstelle oder socket://host:port oder rfc2217://host:port</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>Looking for ports…</source>
        <translation>Schnittstellen werden gesucht…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>No serial port is connected to this computer.</source>
        <translation>Mit diesem Computer ist keine serielle Schnittstelle verbunden.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>The ports of this computer could not be listed. Type an address.</source>
        <translation>Die Schnittstellen dieses Computers konnten nicht aufgelistet werden. Geben Sie eine Adresse ein.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (not plugged in)</source>
        <translation>{address}  (nicht eingesteckt)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (now {port})</source>
        <translation>{address}  (jetzt {port})</translation>
    </message>
</context>
<context>
    <name>ProfileChart</name>
    <message>
        <location filename="../../ui/widgets/profile_chart.py"/>
        <source>Curves of the load profile; the table holds the same values</source>
        <translation>Kurven des Lastgangs; die Tabelle enthält dieselben Werte</translation>
    </message>
</context>
<context>
    <name>ProfileModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Status</source>
        <translation>Status</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no value of this channel for {time}.</source>
        <translation>Der Zähler sendete für {time} keinen Wert dieses Kanals.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no values from {time} on for %n periods.</source>
        <translation>
            <numerusform>Der Zähler sendete ab {time} für %n Periode keine Werte.</numerusform>
            <numerusform>Der Zähler sendete ab {time} für %n Perioden keine Werte.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time of the meter</source>
        <translation>Zeit des Zählers</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>gap</source>
        <translation>Lücke</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>gap: %n periods</source>
        <translation>
            <numerusform>Lücke: %n Periode</numerusform>
            <numerusform>Lücke: %n Perioden</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>QrView</name>
    <message>
        <location filename="../../ui/wizard/qr.py"/>
        <source>QR code of {text}</source>
        <translation>QR-Code von {text}</translation>
    </message>
</context>
<context>
    <name>QuantityPicker</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Quantity</source>
        <translation>Größe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name} ({unit}), no value yet</source>
        <translation>{name} ({unit}), noch kein Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>– choose –</source>
        <translation>– wählen –</translation>
    </message>
</context>
<context>
    <name>Question</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Do not send</source>
        <translation>Nicht senden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Leave as it is</source>
        <translation>So lassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>no</source>
        <translation>nein</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>yes</source>
        <translation>ja</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{command}: {device}</source>
        <translation>{command}: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{verb}?</source>
        <translation>{verb}?</translation>
    </message>
</context>
<context>
    <name>RangeView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>A to B: {0} to {1}.</source>
        <translation>A bis B: {0} bis {1}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Visible: {0} to {1}.</source>
        <translation>Sichtbar: {0} bis {1}.</translation>
    </message>
</context>
<context>
    <name>Reading</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock</source>
        <translation>Uhr</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock set</source>
        <translation>Uhr gestellt</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Detection</source>
        <translation>Erkennung</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile</source>
        <translation>Lastgang</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile nobody waited for</source>
        <translation>Unerwarteter Lastgang</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Log of the device</source>
        <translation>Log des Geräts</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout</source>
        <translation>Auslesung</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout nobody waited for</source>
        <translation>Unerwartete Auslesung</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good if its character is the zero that gateways lose.</source>
        <translation>Die Blockprüfung ist gut, falls ihr Zeichen die Null ist, die Gateways verlieren.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good when the start character is counted, as some meters do.</source>
        <translation>Die Blockprüfung ist gut, wenn das Startzeichen mitgezählt wird, wie es manche Zähler tun.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good.</source>
        <translation>Die Blockprüfung ist gut.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is wrong: characters changed on the way. Read the meter again.</source>
        <translation>Die Blockprüfung ist falsch: Zeichen wurden unterwegs verändert. Lesen Sie den Zähler erneut aus.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The end of the data block is missing, so nothing could be checked.</source>
        <translation>Das Ende des Datenblocks fehlt, daher konnte nichts geprüft werden.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no block check, so changed characters would not be seen.</source>
        <translation>Der Zähler sendete keine Blockprüfung, veränderte Zeichen fielen also nicht auf.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>complete</source>
        <translation>vollständig</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>in doubt</source>
        <translation>zweifelhaft</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>incomplete</source>
        <translation>unvollständig</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} attempts</source>
        <translation>
            <numerusform>{count} Versuch</numerusform>
            <numerusform>{count} Versuche</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} lines</source>
        <translation>
            <numerusform>{count} Zeile</numerusform>
            <numerusform>{count} Zeilen</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} rows, {channels} channels</source>
        <translation>
            <numerusform>{count} Zeile, {channels} Kanäle</numerusform>
            <numerusform>{count} Zeilen, {channels} Kanäle</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} values</source>
        <translation>
            <numerusform>{count} Wert</numerusform>
            <numerusform>{count} Werte</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ReadingBar</name>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Compare it</source>
        <translation>Vergleichen</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How it was opened</source>
        <translation>Wie es geöffnet wurde</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How {name} was opened</source>
        <translation>Wie {name} geöffnet wurde</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Log open for reading</source>
        <translation>Log zum Lesen geöffnet</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Open it as a workspace: its links open and its log grows.</source>
        <translation>Als Arbeitsbereich öffnen: Seine Verbindungen werden geöffnet, sein Log wächst.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>READ ONLY</source>
        <translation>NUR LESEN</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Replay it</source>
        <translation>Wiedergeben</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>See what differs between this log and another one, or within it.</source>
        <translation>Sehen, worin sich dieses Log von einem anderen unterscheidet, oder innerhalb des Logs.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Watch this log again as if it were live.</source>
        <translation>Dieses Log noch einmal wie live ansehen.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Work with it…</source>
        <translation>Damit arbeiten…</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}, as it stood at {time}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}, Stand {time}. Nichts wird gesendet, und nichts darin wird geändert.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}. Nichts wird gesendet, und nichts darin wird geändert.</translation>
    </message>
</context>
<context>
    <name>ReadingList</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Size</source>
        <translation>Umfang</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
</context>
<context>
    <name>ReadingsPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/readings.py"/>
        <source>%n periods are missing</source>
        <translation>
            <numerusform>%n Periode fehlt</numerusform>
            <numerusform>%n Perioden fehlen</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>As received</source>
        <translation>Wie empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts</source>
        <translation>Versuche</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts of the detection</source>
        <translation>Versuche der Erkennung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Clock</source>
        <translation>Uhr</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Copy</source>
        <translation>Kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table</source>
        <translation>Tabelle exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table…</source>
        <translation>Tabelle exportieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Exported to {file}.</source>
        <translation>In {file} exportiert.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Identification {text}</source>
        <translation>Identifikation {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>Vorgang {id} ist nicht in diesem Log.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Load profile</source>
        <translation>Lastgang</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Looking for readings…</source>
        <translation>Auslesungen werden gesucht…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings of {name} yet.
Send it a readout or a load profile.</source>
        <translation>Noch keine Auslesungen von {name}.
Senden Sie eine Auslesung oder einen Lastgang.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings yet.
Choose a meter in the tree, and send it a readout or a load profile.</source>
        <translation>Noch keine Auslesungen.
Wählen Sie im Baum einen Zähler, und senden Sie ihm eine Auslesung oder einen Lastgang.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No values have come yet. They appear here as soon as the meter has answered.</source>
        <translation>Noch sind keine Werte da. Sie erscheinen hier, sobald der Zähler geantwortet hat.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Nichts wurde gesendet. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One answer brought several load profiles</source>
        <translation>Eine Antwort brachte mehrere Lastgänge</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One row every {minutes} min</source>
        <translation>Eine Zeile alle {minutes} min</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Only a part arrived. Do not use these values; read the meter again.</source>
        <translation>Nur ein Teil kam an. Verwenden Sie diese Werte nicht; lesen Sie den Zähler erneut aus.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Phasors</source>
        <translation>Zeiger</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Reading interaction {id} from the log…</source>
        <translation>Vorgang {id} wird aus dem Log gelesen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Readings</source>
        <translation>Auslesungen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Saved as #{number}: the clock is being set.</source>
        <translation>Als #{number} gespeichert: Die Uhr wird gestellt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Search values</source>
        <translation>Werte suchen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Serial number {serial}</source>
        <translation>Seriennummer {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show its command</source>
        <translation>Seinen Befehl zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show older readings</source>
        <translation>Ältere Auslesungen zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Table (*.csv)</source>
        <translation>Tabelle (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Text as received</source>
        <translation>Text wie empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The device has written no log.</source>
        <translation>Das Gerät hat kein Log geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The selected rows, or all that are shown, to the clipboard</source>
        <translation>Die gewählten Zeilen oder alle gezeigten in die Zwischenablage</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The text is not in the answer. The bytes stand with its command.</source>
        <translation>Der Text steht nicht in der Antwort. Die Bytes stehen bei ihrem Befehl.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This device is no longer in the workspace.</source>
        <translation>Dieses Gerät ist nicht mehr im Arbeitsbereich.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This result is {label}.</source>
        <translation>Dieses Ergebnis ist {label}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values</source>
        <translation>Werte</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values of the readout</source>
        <translation>Werte der Auslesung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Views of the reading</source>
        <translation>Ansichten der Auslesung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Which load profile</source>
        <translation>Welcher Lastgang</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} konnte nicht geschrieben werden: {reason}. Wählen Sie einen anderen Ordner.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{found} of {count} rows</source>
        <translation>{found} von {count} Zeilen</translation>
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
        <translation>Wie empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Further groups</source>
        <translation>Weitere Gruppen</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Unit</source>
        <translation>Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
</context>
<context>
    <name>Reason</name>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>Earlier steps of its commissioning are not done yet.  Goes on when: They are.</source>
        <translation>Frühere Schritte der Inbetriebnahme sind noch nicht erledigt.  Geht weiter, wenn: Sie erledigt sind.</translation>
    </message>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>{cause}  Goes on when: {release}</source>
        <translation>{cause}  Geht weiter, wenn: {release}</translation>
    </message>
</context>
<context>
    <name>RecentFiles</name>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>&amp;Forget these files</source>
        <translation>Diese Dateien &amp;vergessen</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>No file was opened yet</source>
        <translation>Noch keine Datei geöffnet</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>Open {path}.</source>
        <translation>{path} öffnen.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>The list is emptied; the files stay where they are.</source>
        <translation>Die Liste wird geleert; die Dateien bleiben, wo sie sind.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   in {folder}</translation>
    </message>
</context>
<context>
    <name>RecordingList</name>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Curves</source>
        <translation>Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Duration</source>
        <translation>Dauer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>End ({zone})</source>
        <translation>Ende ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remark</source>
        <translation>Bemerkung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start ({zone})</source>
        <translation>Anfang ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>all</source>
        <translation>alle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>recording now</source>
        <translation>zeichnet gerade auf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name}, recording now</source>
        <translation>{name}, zeichnet gerade auf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{n} s</source>
        <translation>{n} s</translation>
    </message>
</context>
<context>
    <name>RecordingsPanel</name>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>A recording needs a name; it keeps the one it has.</source>
        <translation>Eine Aufzeichnung braucht einen Namen; sie behält ihren bisherigen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Compare with it</source>
        <translation>Damit vergleichen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Export…</source>
        <translation>Exportieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Go to</source>
        <translation>Anzeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name of the next recording</source>
        <translation>Name der nächsten Aufzeichnung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>No recordings yet. The log keeps every sample in any case; a recording gives a part of it a name, to find it again, to export it and to compare with it. Start recording when the test begins.</source>
        <translation>Noch keine Aufzeichnungen. Das Log behält in jedem Fall jeden Messwert; eine Aufzeichnung gibt einem Teil davon einen Namen, um ihn wiederzufinden, zu exportieren und damit zu vergleichen. Starten Sie die Aufzeichnung, wenn die Prüfung beginnt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Only the curves on the chart</source>
        <translation>Nur die Kurven im Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recording {n}</source>
        <translation>Aufzeichnung {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recordings</source>
        <translation>Aufzeichnungen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Rename</source>
        <translation>Umbenennen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start recording</source>
        <translation>Aufzeichnung starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Stop recording</source>
        <translation>Aufzeichnung beenden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Undo</source>
        <translation>Rückgängig</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>What is exported and compared later; the log keeps every curve in any case.</source>
        <translation>Was später exportiert und verglichen wird; das Log behält in jedem Fall jede Kurve.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Write a remark</source>
        <translation>Bemerkung schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name} was removed. Its samples stay in the log.</source>
        <translation>{name} wurde entfernt. Die Messwerte bleiben im Log.</translation>
    </message>
</context>
<context>
    <name>RecordsPanel</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Billable: one begin, one end, no finding.</source>
        <translation>Abrechenbar: ein Beginn, ein Ende, kein Befund.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Cable</source>
        <translation>Kabel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key inside the record.</source>
        <translation>Mit dem Schlüssel im Datensatz geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key read from the meter.</source>
        <translation>Mit dem aus dem Zähler gelesenen Schlüssel geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key stored at commissioning.</source>
        <translation>Mit dem bei der Inbetriebnahme gespeicherten Schlüssel geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key typed above.</source>
        <translation>Mit dem oben eingegebenen Schlüssel geprüft.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Copy record</source>
        <translation>Datensatz kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Current</source>
        <translation>Strom</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy</source>
        <translation>Energie</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy (kWh)</source>
        <translation>Energie (kWh)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export</source>
        <translation>Lieferung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record</source>
        <translation>Datensatz exportieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record…</source>
        <translation>Datensatz exportieren…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Exported to {file}.</source>
        <translation>In {file} exportiert.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Faults</source>
        <translation>Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Identification</source>
        <translation>Identifikation</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Import</source>
        <translation>Bezug</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Intermediate record: it has no end reading and is not billable. Read the final record when the meter can be reached again.</source>
        <translation>Zwischendatensatz: Er hat keinen Endstand und ist nicht abrechenbar. Lesen Sie den Enddatensatz, wenn der Zähler wieder erreichbar ist.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Key printed on the meter: hexadecimal, base64 or PEM</source>
        <translation>Auf dem Zähler aufgedruckter Schlüssel: hexadezimal, base64 oder PEM</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Kind</source>
        <translation>Art</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Looking for signed records…</source>
        <translation>Signierte Datensätze werden gesucht…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No key was used.</source>
        <translation>Es wurde kein Schlüssel verwendet.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No signed records yet.
Stop a transaction, or read a record from a meter that signs.</source>
        <translation>Noch keine signierten Datensätze.
Beenden Sie eine Transaktion, oder lesen Sie einen Datensatz von einem signierenden Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Not billable, because:</source>
        <translation>Nicht abrechenbar, weil:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OCMF record (*.ocmf)</source>
        <translation>OCMF-Datensatz (*.ocmf)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Pagination</source>
        <translation>Paginierung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key</source>
        <translation>Öffentlicher Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key printed on the meter</source>
        <translation>Auf dem Zähler aufgedruckter öffentlicher Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Readings</source>
        <translation>Zählerstände</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Record as received</source>
        <translation>Datensatz wie empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Show its command</source>
        <translation>Seinen Befehl zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signature</source>
        <translation>Signatur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed record</source>
        <translation>Signierter Datensatz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed records</source>
        <translation>Signierte Datensätze</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Tariff</source>
        <translation>Tarif</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time in the record</source>
        <translation>Zeit im Datensatz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Transaction</source>
        <translation>Transaktion</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Unit</source>
        <translation>Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with the meter&apos;s key</source>
        <translation>Mit dem Schlüssel des Zählers prüfen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with this key</source>
        <translation>Mit diesem Schlüssel prüfen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>begin</source>
        <translation>Beginn</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>charging</source>
        <translation>Laden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end</source>
        <translation>Ende</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, abort</source>
        <translation>Ende, Abbruch</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, local</source>
        <translation>Ende, lokal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, power failure</source>
        <translation>Ende, Stromausfall</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, remote</source>
        <translation>Ende, aus der Ferne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>exception</source>
        <translation>Ausnahme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>ok</source>
        <translation>in Ordnung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>suspended</source>
        <translation>ausgesetzt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>tariff change</source>
        <translation>Tarifwechsel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} konnte nicht geschrieben werden: {reason}. Wählen Sie einen anderen Ordner.</translation>
    </message>
</context>
<context>
    <name>ReferenceDialog</name>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Curves</source>
        <translation>&amp;Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Move it by hand</source>
        <translation>Von &amp;Hand verschieben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Range</source>
        <translation>&amp;Bereich</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>A CSV file with a column of times, or a workspace (*.mwk).</source>
        <translation>Eine CSV-Datei mit einer Zeitspalte oder ein Arbeitsbereich (*.mwk).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>All of it</source>
        <translation>Alles</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Begin at the left &amp;edge of the chart</source>
        <translation>Am linken &amp;Rand des Diagramms beginnen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Curves</source>
        <translation>Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>File</source>
        <translation>Datei</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From</source>
        <translation>Von</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From and to by hand</source>
        <translation>Von und bis von Hand</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Its times count from a start: there is no clock in them.</source>
        <translation>Ihre Zeiten zählen ab einem Start: Sie enthalten keine Uhrzeit.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Leave without adding</source>
        <translation>Ohne Hinzufügen verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>More than 0 is later.</source>
        <translation>Mehr als 0 heißt später.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Move it by</source>
        <translation>Verschieben um</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>On the chart from {first} to {last}.</source>
        <translation>Im Diagramm von {first} bis {last}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Put on the chart</source>
        <translation>Ins Diagramm legen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Range</source>
        <translation>Bereich</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples was stopped. Choose fewer curves or a shorter range.</source>
        <translation>Das Lesen der Messwerte wurde abgebrochen. Wählen Sie weniger Kurven oder einen kürzeren Bereich.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples…</source>
        <translation>Messwerte werden gelesen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name} was stopped. Choose another file.</source>
        <translation>Das Lesen von {name} wurde abgebrochen. Wählen Sie eine andere Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name}…</source>
        <translation>{name} wird gelesen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Recording {name}, {start}</source>
        <translation>Aufzeichnung {name}, {start}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reference curves</source>
        <translation>Referenzkurven</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stay at its &amp;own times</source>
        <translation>Bei den &amp;eigenen Zeiten bleiben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Still needed: {what}.</source>
        <translation>Noch nötig: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stop reading</source>
        <translation>Lesen abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>That is the most of one curve: choose a later start for what follows.</source>
        <translation>Mehr geht bei einer Kurve nicht: Wählen Sie für das Folgende einen späteren Anfang.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>The file is being read</source>
        <translation>Die Datei wird gelesen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no file {path}. Choose another one.</source>
        <translation>Es gibt keine Datei {path}. Wählen Sie eine andere.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no sample in this range. Choose another one.</source>
        <translation>In diesem Bereich gibt es keinen Messwert. Wählen Sie einen anderen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Times that name no zone are</source>
        <translation>Zeiten ohne Zeitzone sind</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>To</source>
        <translation>Bis</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What was found in the file</source>
        <translation>Was in der Datei gefunden wurde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What will be put on the chart</source>
        <translation>Was ins Diagramm gelegt wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Where it stands on the chart</source>
        <translation>Wo sie im Diagramm stehen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a device</source>
        <translation>ein Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a file</source>
        <translation>eine Datei</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a number of seconds</source>
        <translation>eine Anzahl Sekunden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a range</source>
        <translation>ein Bereich</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>an end that is later than the start</source>
        <translation>ein Ende, das später als der Anfang ist</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>at least one curve</source>
        <translation>mindestens eine Kurve</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>fewer curves: at most {most} at once</source>
        <translation>weniger Kurven: höchstens {most} auf einmal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in UTC</source>
        <translation>in UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in the zone of this computer</source>
        <translation>in der Zeitzone dieses Computers</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>no gap</source>
        <translation>keine Lücke</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>one gap</source>
        <translation>eine Lücke</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{count} gaps</source>
        <translation>{count} Lücken</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds no curve. Choose another file.</source>
        <translation>{name} enthält keine Kurve. Wählen Sie eine andere Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds one curve.</source>
        <translation>{name} enthält eine Kurve.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of one device.</source>
        <translation>{name} enthält {curves} Kurven eines Geräts.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of {devices} devices.</source>
        <translation>{name} enthält {curves} Kurven von {devices} Geräten.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration} from {first}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {count} Messwert über {duration} ab {first}, {gaps}.</numerusform>
            <numerusform>{name}: {count} Messwerte über {duration} ab {first}, {gaps}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {count} Messwert über {duration}, {gaps}.</numerusform>
            <numerusform>{name}: {count} Messwerte über {duration}, {gaps}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Replaced</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>addresses</source>
        <translation>Adressen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>customers</source>
        <translation>Kunden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>keys</source>
        <translation>Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>names</source>
        <translation>Namen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>places</source>
        <translation>Orte</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>serial numbers</source>
        <translation>Seriennummern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>tokens</source>
        <translation>Token</translation>
    </message>
</context>
<context>
    <name>ReplacedPanel</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>&amp;Hide the originals</source>
        <translation>Originale &amp;verbergen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How much is replaced</source>
        <translation>Wie viel ersetzt wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Kind</source>
        <translation>Art</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>On this screen only, for example while others look on.</source>
        <translation>Nur auf diesem Bildschirm, zum Beispiel wenn andere zusehen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Original</source>
        <translation>Original</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Pseudonym</source>
        <translation>Pseudonym</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search</source>
        <translation>Suchen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search in what is replaced</source>
        <translation>In den Ersetzungen suchen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Times</source>
        <translation>Anzahl</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What is replaced by what</source>
        <translation>Was wodurch ersetzt wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} different words, {times} times</source>
        <translation>{n} verschiedene Wörter, {times}-mal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{shown} of {n} different words</source>
        <translation>{shown} von {n} verschiedenen Wörtern</translation>
    </message>
</context>
<context>
    <name>ReplayBar</name>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Begin again at the end of the recording.</source>
        <translation>Am Ende der Aufzeichnung von vorn beginnen.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Enter another time of the recording to go there; Esc leaves it as it is.</source>
        <translation>Geben Sie eine andere Zeit der Aufzeichnung ein, um dorthin zu gehen; Esc lässt sie, wie sie ist.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on</source>
        <translation>Fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next bytes that moved, then hold.</source>
        <translation>Bis zu den nächsten übertragenen Bytes weitergehen, dann anhalten.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next end of a command or the next report, then hold.</source>
        <translation>Bis zum nächsten Ende eines Befehls oder zur nächsten Meldung weitergehen, dann anhalten.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Hold the recording, or go on.</source>
        <translation>Aufzeichnung anhalten oder fortsetzen.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>How much faster than it was recorded.</source>
        <translation>Wie viel schneller als aufgezeichnet.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Loop</source>
        <translation>Schleife</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next command</source>
        <translation>Nächster Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next frame</source>
        <translation>Nächster Frame</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Nothing is sent to a meter while a log is replayed.</source>
        <translation>Während ein Log wiedergegeben wird, wird nichts an einen Zähler gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Pause</source>
        <translation>Anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Play again</source>
        <translation>Erneut abspielen</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Position in the recording</source>
        <translation>Position in der Aufzeichnung</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>REPLAY</source>
        <translation>WIEDERGABE</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Replay controls</source>
        <translation>Steuerung der Wiedergabe</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Speed</source>
        <translation>Tempo</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Time in the recording</source>
        <translation>Zeit in der Aufzeichnung</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>as fast as possible</source>
        <translation>so schnell wie möglich</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>{n} times</source>
        <translation>{n}-fach</translation>
    </message>
</context>
<context>
    <name>ReportSaver</name>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>HTML page</source>
        <translation>HTML-Seite</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>JSON</source>
        <translation>JSON</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>PDF, to print and sign</source>
        <translation>PDF, zum Drucken und Unterschreiben</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>Save the report</source>
        <translation>Bericht speichern</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report was written to {file}.</source>
        <translation>Der Bericht wurde in {file} geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report {name} is being written.</source>
        <translation>Der Bericht {name} wird geschrieben.</translation>
    </message>
</context>
<context>
    <name>ResultBox</name>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Result of the test</source>
        <translation>Ergebnis des Tests</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Stop the test</source>
        <translation>Test abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>The test is under way</source>
        <translation>Der Test läuft</translation>
    </message>
</context>
<context>
    <name>ResultView</name>
    <message numerus="yes">
        <location filename="../../ui/panels/accuracy.py"/>
        <source>%n rows are on the clipboard.</source>
        <translation>
            <numerusform>%n Zeile ist in der Zwischenablage.</numerusform>
            <numerusform>%n Zeilen sind in der Zwischenablage.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A new test with the plan as it stands.</source>
        <translation>Eine neue Prüfung nach dem aktuellen Plan.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>All files (*)</source>
        <translation>Alle Dateien (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Copy rows</source>
        <translation>Zeilen kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Lines of the result</source>
        <translation>Zeilen des Ergebnisses</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure again</source>
        <translation>Erneut messen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results that are kept</source>
        <translation>Aufbewahrte Ergebnisse</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as HTML…</source>
        <translation>Als HTML speichern…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as JSON…</source>
        <translation>Als JSON speichern…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save result</source>
        <translation>Ergebnis speichern</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Saved as {file}.</source>
        <translation>Gespeichert als {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen rows, or all (Ctrl+C).</source>
        <translation>Die gewählten Zeilen oder alle (Strg+C).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} konnte nicht geschrieben werden: {reason}. Wählen Sie einen anderen Ordner.</translation>
    </message>
</context>
<context>
    <name>Routes</name>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Can also be reached: {ways}</source>
        <translation>Auch erreichbar: {ways}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Reached: {way}</source>
        <translation>Erreicht: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>directly</source>
        <translation>direkt</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>through {gateway}</source>
        <translation>über {gateway}</translation>
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
        <translation>nach einem Ausfall</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>all gateways down</source>
        <translation>alle Gateways offline</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>behind suspended</source>
        <translation>hinter Angehaltenem</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>capability</source>
        <translation>Fähigkeit</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>device busy</source>
        <translation>Gerät beschäftigt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>disconnected</source>
        <translation>abgeschaltet</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>expired</source>
        <translation>abgelaufen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>forbidden</source>
        <translation>nicht erlaubt</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>foreign write</source>
        <translation>fremder Schreibvorgang</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gateway down</source>
        <translation>Gateway offline</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>grid down</source>
        <translation>Netz stromlos</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>link down</source>
        <translation>Verbindung unterbrochen</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen</source>
        <translation>nie gehört</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen, commissioning</source>
        <translation>nie gehört, Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not seen recently</source>
        <translation>länger nicht gehört</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>planned</source>
        <translation>geplant</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>recovery grace</source>
        <translation>Schonzeit nach Wiederkehr</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry of a commissioning</source>
        <translation>neuer Versuch einer Inbetriebnahme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unreachable</source>
        <translation>nicht erreichbar</translation>
    </message>
</context>
<context>
    <name>RunPage</name>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>A command that has left goes on and may still take effect. What was found stays kept.</source>
        <translation>Ein Befehl, der schon hinaus ist, läuft weiter und kann noch wirken. Was gefunden wurde, bleibt aufbewahrt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Answer: {answer}</source>
        <translation>Antwort: {answer}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Ask again</source>
        <translation>Erneut fragen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>By {who}.</source>
        <translation>Von {who}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Checks of the step</source>
        <translation>Prüfungen des Schritts</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Commission {name} again</source>
        <translation>{name} erneut in Betrieb nehmen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Do all steps of the commissioning of {name} again?</source>
        <translation>Alle Schritte der Inbetriebnahme von {name} noch einmal ausführen?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Flows and earlier runs</source>
        <translation>Abläufe und frühere Durchläufe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Found</source>
        <translation>Gefunden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it again…</source>
        <translation>Erneut geben…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it now…</source>
        <translation>Jetzt geben…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with a warning</source>
        <translation>Mit Warnung fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with the flow</source>
        <translation>Ablauf fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interaction: {listed}</source>
        <translation>Vorgang: {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interactions: {listed}</source>
        <translation>Vorgänge: {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>It can be left out, with a reason:</source>
        <translation>Er kann mit Angabe eines Grundes entfallen:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Let it go on</source>
        <translation>Weiterlaufen lassen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>No.</source>
        <translation>Nr.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Note: {note}</source>
        <translation>Notiz: {note}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Or say why it need not pass:</source>
        <translation>Oder geben Sie an, warum er nicht bestanden werden muss:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Pause the flow</source>
        <translation>Ablauf anhalten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read again</source>
        <translation>Erneut lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read it back: {command}</source>
        <translation>Zurücklesen: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason</source>
        <translation>Grund</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason, for the report</source>
        <translation>Grund, für den Bericht</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Run again…</source>
        <translation>Erneut ausführen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Save report…</source>
        <translation>Bericht speichern…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Skip this step</source>
        <translation>Diesen Schritt überspringen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Step</source>
        <translation>Schritt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Steps of the flow</source>
        <translation>Schritte des Ablaufs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow</source>
        <translation>Ablauf abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow on {name}</source>
        <translation>Ablauf an {name} abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow…</source>
        <translation>Ablauf abbrechen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop {flow} on {name} before its end?</source>
        <translation>{flow} an {name} vor dem Ende abbrechen?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Tamper state, credit and power limit of the meter are overwritten once more.</source>
        <translation>Manipulationsstatus, Guthaben und Leistungsgrenze des Zählers werden noch einmal überschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Verdict</source>
        <translation>Bewertung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Wanted</source>
        <translation>Erwartet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>began {time}, by {who}</source>
        <translation>begonnen {time}, von {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>{flow} on {name}</source>
        <translation>{flow} an {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>{number}. {title}: {state}</source>
        <translation>{number}. {title}: {state}</translation>
    </message>
</context>
<context>
    <name>RunView</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>All load points are measured.</source>
        <translation>Alle Lastpunkte sind gemessen.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off this load point</source>
        <translation>Diesen Lastpunkt abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off…</source>
        <translation>Abbrechen…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>End the test here</source>
        <translation>Prüfung hier beenden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Go on measuring</source>
        <translation>Weiter messen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Last values of the two meters</source>
        <translation>Letzte Werte der beiden Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load point {number} of {count}: {name}</source>
        <translation>Lastpunkt {number} von {count}: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points of this test</source>
        <translation>Lastpunkte dieser Prüfung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure this load point again</source>
        <translation>Diesen Lastpunkt erneut messen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measuring. Leave the load as it is.</source>
        <translation>Messung läuft. Lassen Sie die Last unverändert.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Progress of the repeat</source>
        <translation>Fortschritt der Wiederholung</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Reason for breaking off</source>
        <translation>Grund des Abbruchs</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {energy} of {target} Wh, {seconds}</source>
        <translation>Wiederholung {repeat} von {repeats}: {energy} von {target} Wh, {seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {seconds} of {target} s, {energy}</source>
        <translation>Wiederholung {repeat} von {repeats}: {seconds} von {target} s, {energy}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error</source>
        <translation>Laufender Fehler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load to {name}, {power} W, and wait until it is steady. Then start measuring.</source>
        <translation>Stellen Sie die Last auf {name}, {power} W, und warten Sie, bis sie stabil ist. Starten Sie dann die Messung.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load is set: measure</source>
        <translation>Last ist eingestellt: messen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load points measured so far become the result.</source>
        <translation>Die bisher gemessenen Lastpunkte werden zum Ergebnis.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load settles for {waits} s, then the next value of both meters starts the measurement.</source>
        <translation>Die Last schwingt {waits} s ein, dann startet der nächste Wert beider Zähler die Messung.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This load point was broken off: {reason}. Set the load again and measure it again.</source>
        <translation>Dieser Lastpunkt wurde abgebrochen: {reason}. Stellen Sie die Last erneut ein und messen Sie ihn noch einmal.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Waiting for the next value of both meters.</source>
        <translation>Warten auf den nächsten Wert beider Zähler.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Why is it broken off?</source>
        <translation>Warum wird abgebrochen?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>broken off by the person, no reason given</source>
        <translation>von der Person abgebrochen, ohne Angabe eines Grundes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>limit ±{limit} %</source>
        <translation>Grenze ±{limit} %</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no error yet   {limit}</source>
        <translation>noch kein Fehler   {limit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no limit</source>
        <translation>keine Grenze</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: no value yet</source>
        <translation>{role}: noch kein Wert</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: {value} ({age} s ago)</source>
        <translation>{role}: {value} (vor {age} s)</translation>
    </message>
</context>
<context>
    <name>SamplesModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time</source>
        <translation>Zeit</translation>
    </message>
</context>
<context>
    <name>SamplesView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>No samples here: show an earlier time, or connect the device.</source>
        <translation>Hier sind keine Messwerte: Zeigen Sie eine frühere Zeit, oder verbinden Sie das Gerät.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>The newest {0:,} rows; narrow the range for earlier ones, or export it.</source>
        <translation>Die neuesten {0:,} Zeilen; verkleinern Sie den Bereich für frühere, oder exportieren Sie ihn.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0:,} rows.</source>
        <translation>{0:,} Zeilen.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0} newer rows. Show them</source>
        <translation>{0} neuere Zeilen. Anzeigen</translation>
    </message>
</context>
<context>
    <name>SavedFilterBar</name>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Filters with a name</source>
        <translation>Benannte Filter</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Leave</source>
        <translation>Verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Name of this filter</source>
        <translation>Name dieses Filters</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>New name of {name}</source>
        <translation>Neuer Name von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>No filter saved yet</source>
        <translation>Noch kein Filter gespeichert</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Nothing is filtered now.</source>
        <translation>Zurzeit ist nichts gefiltert.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Remove</source>
        <translation>Entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename</source>
        <translation>Umbenennen</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename the filter</source>
        <translation>Filter umbenennen</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Replace {name}</source>
        <translation>{name} ersetzen</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter</source>
        <translation>Filter speichern</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter in force…</source>
        <translation>Aktuellen Filter speichern…</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Saved</source>
        <translation>Gespeichert</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filter is saved as {name}.</source>
        <translation>Der Filter ist als {name} gespeichert.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filters could not be saved. {why}</source>
        <translation>Die Filter konnten nicht gespeichert werden. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Undo</source>
        <translation>Rückgängig</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{count} filters are saved. Remove one first.</source>
        <translation>{count} Filter sind gespeichert. Entfernen Sie zuerst einen.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{name} is removed.</source>
        <translation>{name} ist entfernt.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{old} is now called {name}.</source>
        <translation>{old} heißt jetzt {name}.</translation>
    </message>
</context>
<context>
    <name>SavingPage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save the device</source>
        <translation>Gerät &amp;speichern</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {name}</source>
        <translation>{name} &amp;speichern</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {n} devices</source>
        <translation>{n} Geräte &amp;speichern</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;What will be saved</source>
        <translation>&amp;Was gespeichert wird</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>As on its name plate. Its flow checks that this meter is the one that answers.</source>
        <translation>Wie auf dem Typenschild. Der Ablauf prüft, ob dieser Zähler derjenige ist, der antwortet.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>It is being saved...</source>
        <translation>Wird gespeichert...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Its name and its place</source>
        <translation>Name und Platz</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Noch nötig: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>There was no good test of this connection. It can be saved all the same.</source>
        <translation>Für diese Verbindung gab es keinen erfolgreichen Test. Sie kann trotzdem gespeichert werden.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Tick what is to be saved.</source>
        <translation>Haken Sie an, was gespeichert werden soll.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>What will be saved</source>
        <translation>Was gespeichert wird</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name}  (in the tree already)</source>
        <translation>{name}  (bereits im Baum)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name} has the serial number {serial} too: it seems to be the same device.</source>
        <translation>{name} hat ebenfalls die Seriennummer {serial}: Es scheint dasselbe Gerät zu sein.</translation>
    </message>
</context>
<context>
    <name>SearchPage</name>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Stop the search</source>
        <translation>Suche &amp;abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test it</source>
        <translation>&amp;Testen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test {name}</source>
        <translation>{name} &amp;testen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that came</source>
        <translation>Empfangene Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that were sent</source>
        <translation>Gesendete Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Choose a try to see its bytes.</source>
        <translation>Wählen Sie einen Versuch, um seine Bytes zu sehen.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Compare the fingerprint of the certificate first.</source>
        <translation>Vergleichen Sie zuerst den Fingerabdruck des Zertifikats.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Fingerprint of the certificate (SHA-256)</source>
        <translation>Fingerabdruck des Zertifikats (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>How far the search is</source>
        <translation>Wie weit die Suche ist</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>I &amp;compared the fingerprint with the meter&apos;s papers, and it is the same</source>
        <translation>Ich habe den Fingerabdruck mit den Papieren des Zählers ver&amp;glichen, er stimmt überein</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Looking: {tries} of at most {count} tries, {passed} of at most {most}.</source>
        <translation>Suche: {tries} von höchstens {count} Versuchen, {passed} von höchstens {most}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing came back.</source>
        <translation>Nichts kam zurück.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found yet.</source>
        <translation>Noch nichts gefunden.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found.</source>
        <translation>Nichts gefunden.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was sent.</source>
        <translation>Nichts wurde gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Outcome</source>
        <translation>Ausgang</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Progress of the search</source>
        <translation>Fortschritt der Suche</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Received</source>
        <translation>Empfangen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Search &amp;again</source>
        <translation>&amp;Erneut suchen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Sent</source>
        <translation>Gesendet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search begins...</source>
        <translation>Die Suche beginnt...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search is being stopped...</source>
        <translation>Die Suche wird abgebrochen...</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/wizard/search.py"/>
        <source>The search was stopped after {n} tries.</source>
        <translation>
            <numerusform>Die Suche wurde nach {n} Versuch angehalten.</numerusform>
            <numerusform>Die Suche wurde nach {n} Versuchen angehalten.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Tried</source>
        <translation>Versucht</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for it to dial in</source>
        <translation>Warten, dass es sich einwählt</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for the device: {passed} of at most {most}.</source>
        <translation>Warten auf das Gerät: {passed} von höchstens {most}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What</source>
        <translation>Was</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What answers</source>
        <translation>Was antwortet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What came of it</source>
        <translation>Was daraus wurde</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was found</source>
        <translation>Was gefunden wurde</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was tried</source>
        <translation>Was versucht wurde</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Where</source>
        <translation>Wo</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>answered</source>
        <translation>geantwortet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>silent</source>
        <translation>still</translation>
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
        <translation>Ein Arbeitsbereich bewahrt jeden Vorgang, jedes Byte und jeden Messwert auf, bis seine Datei gelöscht wird.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Armed for</source>
        <translation>Freigegeben für</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>As it is</source>
        <translation>Ist-Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Colours</source>
        <translation>Farben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts from the next start.</source>
        <translation>Gilt ab dem nächsten Start.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts when a workspace is opened next. Files have UTC always.</source>
        <translation>Gilt, wenn das nächste Mal ein Arbeitsbereich geöffnet wird. Dateien haben immer UTC.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Devices dial in at</source>
        <translation>Geräte wählen sich ein bei</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Folder for exports</source>
        <translation>Ordner für Exporte</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>For a screen whose size the system gets wrong. Counts from the next start.</source>
        <translation>Für einen Bildschirm, dessen Größe das System falsch erkennt. Gilt ab dem nächsten Start.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Keyring</source>
        <translation>Schlüsselbund</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language</source>
        <translation>Sprache</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language and size count from the next start of Meterwright.</source>
        <translation>Sprache und Größe gelten ab dem nächsten Start von Meterwright.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Leave as it was</source>
        <translation>So lassen, wie es war</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Passwords and keys</source>
        <translation>Passwörter und Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Save the settings</source>
        <translation>Einstellungen speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings</source>
        <translation>Einstellungen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Einstellungen: {config}
Arbeitsbereiche: {data}
Programmlog und Absturzberichte: {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Size of everything</source>
        <translation>Größe von allem</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>So long may be written to meters once that is armed; then the window only reads.</source>
        <translation>So lange darf nach einer Schreibfreigabe auf Zähler geschrieben werden; danach liest das Fenster nur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a folder that is there, or none.</source>
        <translation>Noch nötig: ein vorhandener Ordner oder keiner.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a number of minutes.</source>
        <translation>Noch nötig: eine Anzahl Minuten.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: an address of this computer.</source>
        <translation>Noch nötig: eine Adresse dieses Computers.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The keyring of this computer is being asked…</source>
        <translation>Der Schlüsselbund dieses Computers wird abgefragt…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The program&apos;s own log takes {size} at most; the oldest lines go.</source>
        <translation>Das eigene Log des Programms belegt höchstens {size}; die ältesten Zeilen fallen weg.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Times on screen</source>
        <translation>Zeiten am Bildschirm</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>UTC</source>
        <translation>UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>What is kept</source>
        <translation>Was aufbewahrt wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Window</source>
        <translation>Fenster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Work</source>
        <translation>Arbeit</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has it</source>
        <translation>wie im System</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has them</source>
        <translation>wie im System</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>dark</source>
        <translation>dunkel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>light</source>
        <translation>hell</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>local time of this computer</source>
        <translation>Ortszeit dieses Computers</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{name} takes {size} now.</source>
        <translation>{name} belegt derzeit {size}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{n} %</source>
        <translation>{n} %</translation>
    </message>
</context>
<context>
    <name>Severity</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>Störung</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>note</source>
        <translation>Hinweis</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>warning</source>
        <translation>Warnung</translation>
    </message>
</context>
<context>
    <name>Share</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>File</source>
        <translation>Datei</translation>
    </message>
</context>
<context>
    <name>ShareDialog</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A &amp;part of the log</source>
        <translation>Ein &amp;Teil des Logs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A support &amp;bundle</source>
        <translation>Ein Su&amp;pport-Paket</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>All {n} interactions.</source>
        <translation>Alle {n} Vorgänge.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Correct the filter, then what is replaced by what stands here.</source>
        <translation>Korrigieren Sie den Filter; danach wird ersetzt, was hier steht.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Counting…</source>
        <translation>Wird gezählt…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Everything; or, for example,  status:failed device:lem-1</source>
        <translation>Alles; oder zum Beispiel  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;ilter</source>
        <translation>F&amp;ilter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;orm</source>
        <translation>Fo&amp;rm</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Filter</source>
        <translation>Filter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Form</source>
        <translation>Form</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>From</source>
        <translation>Von</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How many interactions</source>
        <translation>Wie viele Vorgänge</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>It was stopped. Nothing was written.</source>
        <translation>Es wurde abgebrochen. Nichts wurde geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;again</source>
        <translation>Er&amp;neut nachsehen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;now</source>
        <translation>Jetzt &amp;nachsehen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced…</source>
        <translation>Es wird gesucht, was zu ersetzen ist…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced… {percent} %</source>
        <translation>Es wird gesucht, was zu ersetzen ist… {percent} %</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>None of {all} interactions matches.</source>
        <translation>Keiner von {all} Vorgängen passt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing was replaced.</source>
        <translation>Es wurde nichts ersetzt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing would be replaced.</source>
        <translation>Es würde nichts ersetzt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>One ZIP file that says how this installation stands: versions, the doctor&apos;s findings, settings, devices and the program&apos;s log, all without secrets.</source>
        <translation>Eine ZIP-Datei über den Zustand dieser Installation: Versionen, Befunde der Diagnose, Einstellungen, Geräte und das Log des Programms, alles ohne Geheimnisse.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Onl&amp;y those of a time</source>
        <translation>N&amp;ur die einer Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Passwords and other secrets are hidden in any case.</source>
        <translation>Passwörter und andere Geheimnisse werden in jedem Fall verborgen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. Nothing is written for that.</source>
        <translation>Mit „Jetzt nachsehen“ sehen Sie, was wodurch ersetzt wird. Dafür wird nichts geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. The doctor takes some seconds.</source>
        <translation>Mit „Jetzt nachsehen“ sehen Sie, was wodurch ersetzt wird. Die Diagnose braucht einige Sekunden.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced by pseudonyms, the same ones everywhere</source>
        <translation>Durch Pseudonyme ersetzt, überall dieselben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced in it: {kinds}.</source>
        <translation>Darin ersetzt: {kinds}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share a part of the log</source>
        <translation>Teil des Logs weitergeben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share: support bundle</source>
        <translation>Weitergeben: Support-Paket</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Show in &amp;folder</source>
        <translation>Im &amp;Ordner zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a file.</source>
        <translation>Noch nötig: eine Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that can be read.</source>
        <translation>Noch nötig: ein lesbarer Filter.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that something matches.</source>
        <translation>Noch nötig: ein Filter, der etwas trifft.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: an end of the samples that is behind their beginning.</source>
        <translation>Noch nötig: ein Ende der Messwerte, das nach ihrem Beginn liegt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop loo&amp;king</source>
        <translation>Suche a&amp;bbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop writing</source>
        <translation>Schreiben abbrechen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stopping…</source>
        <translation>Wird abgebrochen…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Support bundle (*.zip)</source>
        <translation>Support-Paket (*.zip)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The file is being written</source>
        <translation>Die Datei wird geschrieben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This computer has nothing to show a folder with. The file is {file}.</source>
        <translation>Auf diesem Computer lässt sich kein Ordner anzeigen. Die Datei ist {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This form holds no samples.</source>
        <translation>Diese Form enthält keine Messwerte.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>To before</source>
        <translation>Bis vor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What became of it</source>
        <translation>Was daraus wurde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What happened, and what did you expect?</source>
        <translation>Was ist passiert, und was haben Sie erwartet?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What was replaced</source>
        <translation>Was ersetzt wurde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What would be replaced</source>
        <translation>Was ersetzt würde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With a part of the &amp;log</source>
        <translation>Mit einem Teil des &amp;Logs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With the &amp;samples of the devices</source>
        <translation>Mit den &amp;Messwerten der Geräte</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the bundle</source>
        <translation>Paket schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the file</source>
        <translation>Datei schreiben</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Writing {name}…</source>
        <translation>{name} wird geschrieben…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{file} holds {names}. Look through it before you send it.</source>
        <translation>{file} enthält {names}. Sehen Sie die Datei durch, bevor Sie sie senden.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name}, a part</source>
        <translation>{name}, ein Teil</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} attachments were left out: what stands in a picture cannot be replaced.</source>
        <translation>
            <numerusform>{n} Anhang wurde weggelassen: Was in einem Bild steht, kann nicht ersetzt werden.</numerusform>
            <numerusform>{n} Anhänge wurden weggelassen: Was in einem Bild steht, kann nicht ersetzt werden.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} frames were written to {file}.</source>
        <translation>
            <numerusform>{n} Frame wurde in {file} geschrieben.</numerusform>
            <numerusform>{n} Frames wurden in {file} geschrieben.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} interactions were written to {file}.</source>
        <translation>
            <numerusform>{n} Vorgang wurde in {file} geschrieben.</numerusform>
            <numerusform>{n} Vorgänge wurden in {file} geschrieben.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} of {all} interactions.</source>
        <translation>{n} von {all} Vorgängen.</translation>
    </message>
</context>
<context>
    <name>Shortcuts</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Begin again at the end, or not</source>
        <translation>Am Ende von vorn beginnen oder nicht</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Choose everything</source>
        <translation>Alles auswählen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy the chosen rows, in the tables beside it</source>
        <translation>In den Tabellen daneben: gewählte Zeilen kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy what is chosen</source>
        <translation>Gewähltes kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Empty the search or filter line, or leave it</source>
        <translation>Such- oder Filterzeile leeren oder verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Everywhere</source>
        <translation>Überall</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Follow what comes</source>
        <translation>Neuem folgen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>From a search or filter line into the list below</source>
        <translation>Von einer Such- oder Filterzeile in die Liste darunter</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the picture, or go on</source>
        <translation>Bild anhalten oder fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the recording, or go on</source>
        <translation>Aufzeichnung anhalten oder fortsetzen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In bytes</source>
        <translation>In den Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the fourteen steps</source>
        <translation>In den vierzehn Schritten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the log and in lists</source>
        <translation>Im Log und in Listen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Leave a dialog, the palette or a menu</source>
        <translation>Dialog, Palette oder Menü verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor A</source>
        <translation>Cursor A bewegen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor B</source>
        <translation>Cursor B bewegen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move in time</source>
        <translation>In der Zeit bewegen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Note on this moment</source>
        <translation>Notiz zu diesem Zeitpunkt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>On a chart</source>
        <translation>In einem Diagramm</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Open what is chosen</source>
        <translation>Gewähltes öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Put cursor A or B in the middle</source>
        <translation>Cursor A oder B in die Mitte setzen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show everything</source>
        <translation>Alles zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show less time, or more</source>
        <translation>Weniger oder mehr Zeit zeigen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show what belongs to the step</source>
        <translation>Zeigen, was zum Schritt gehört</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Take the chosen curve away, in the list of curves</source>
        <translation>In der Kurvenliste: gewählte Kurve wegnehmen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the ends of the line; with Ctrl of all</source>
        <translation>An die Enden der Zeile; mit Strg an die Enden von allem</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the first step, or the last</source>
        <translation>Zum ersten oder letzten Schritt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next byte; with Shift choose them</source>
        <translation>Zum nächsten Byte; mit Umschalt auswählen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next bytes that moved</source>
        <translation>Zu den nächsten übertragenen Bytes</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next command</source>
        <translation>Zum nächsten Befehl</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next field, or the one before</source>
        <translation>Zum nächsten oder vorigen Feld</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next step in that direction</source>
        <translation>Zum nächsten Schritt in dieser Richtung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What a right click offers</source>
        <translation>Was ein Rechtsklick anbietet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What may stand here, in the filter line</source>
        <translation>Was hier, in der Filterzeile, stehen darf</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>While a log is replayed</source>
        <translation>Während ein Log wiedergegeben wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>With an underlined letter: to that menu, button or field</source>
        <translation>Mit unterstrichenem Buchstaben: zu diesem Menü, Knopf oder Feld</translation>
    </message>
</context>
<context>
    <name>ShortcutsDialog</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>A key or what it does</source>
        <translation>Eine Taste oder was sie tut</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Close</source>
        <translation>Schließen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Ctrl+Shift+P finds every action by typing, also those without a key.</source>
        <translation>Strg+Umschalt+P findet jede Aktion durch Tippen, auch solche ohne Taste.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keyboard shortcuts</source>
        <translation>Tastenkürzel</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keys</source>
        <translation>Tasten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Look for a key or what it does</source>
        <translation>Nach einer Taste oder ihrer Wirkung suchen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Nichts passt. Versuchen Sie weniger Buchstaben.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What it does</source>
        <translation>Wirkung</translation>
    </message>
</context>
<context>
    <name>StartPage</name>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Began</source>
        <translation>Begonnen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Customer</source>
        <translation>Kunde</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Earlier runs</source>
        <translation>Frühere Durchläufe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Engineer</source>
        <translation>Techniker</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flow</source>
        <translation>Ablauf</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows</source>
        <translation>Abläufe</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows for {name}</source>
        <translation>Abläufe für {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>For the report (kept with this workspace)</source>
        <translation>Für den Bericht (mit diesem Arbeitsbereich gespeichert)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Instrument</source>
        <translation>Messgerät</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It changes the device: {writes}. You are asked before it begins.</source>
        <translation>Er ändert das Gerät: {writes}. Sie werden vor dem Beginn gefragt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It only reads: nothing on the device is changed.</source>
        <translation>Er liest nur: Am Gerät wird nichts geändert.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>No flow is made for {system}. Put a flow file (TOML) with this system among its adapters into the folder “flows” of your profile, and read the files again.</source>
        <translation>Für {system} gibt es keinen Ablauf. Legen Sie eine Ablaufdatei (TOML), die dieses System unter ihren Adaptern nennt, in den Ordner „flows“ Ihres Profils, und lesen Sie die Dateien neu.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Read files again</source>
        <translation>Dateien neu lesen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Site</source>
        <translation>Standort</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Start flow on {name}</source>
        <translation>Ablauf an {name} starten</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>State</source>
        <translation>Zustand</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (asks you)</source>
        <translation>{line}  (fragt Sie)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (changes the device)</source>
        <translation>{line}  (ändert das Gerät)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (left out with these inputs)</source>
        <translation>{line}  (entfällt mit diesen Eingaben)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{name} does not offer {commands}: those steps cannot pass here.</source>
        <translation>{name} bietet {commands} nicht an: Diese Schritte können hier nicht bestanden werden.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{title}, version {version}</source>
        <translation>{title}, Version {version}</translation>
    </message>
</context>
<context>
    <name>StateBand</name>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>States</source>
        <translation>Zustände</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>and {n} more: hide the curves of other devices in the list below</source>
        <translation>und {n} weitere: Blenden Sie in der Liste unten die Kurven anderer Geräte aus</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not connected; last known {what}, {time}</source>
        <translation>nicht verbunden; zuletzt bekannt {what}, {time}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known before {time}</source>
        <translation>vor {time} nicht bekannt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known yet</source>
        <translation>noch nicht bekannt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Not known before {time}: states are kept while the device is on the chart.</source>
        <translation>{name}
Vor {time} nicht bekannt: Zustände werden aufbewahrt, solange das Gerät im Diagramm ist.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Nothing was heard at this time.</source>
        <translation>{name}
Zu dieser Zeit wurde nichts gehört.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}: {state}</source>
        <translation>{name}: {state}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{what}
{start} to {end}, {length} s</source>
        <translation>{what}
{start} bis {end}, {length} s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{what} since {time}</source>
        <translation>{what} seit {time}</translation>
    </message>
</context>
<context>
    <name>States</name>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>error flags {flags}</source>
        <translation>Fehlerflags {flags}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>mode {mode}</source>
        <translation>Modus {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>{text} and {n} more</source>
        <translation>{text} und {n} weitere</translation>
    </message>
</context>
<context>
    <name>StatisticsModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Change</source>
        <translation>Änderung</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Device</source>
        <translation>Gerät</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Energy, charge</source>
        <translation>Energie, Ladung</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>First</source>
        <translation>Erster</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Last</source>
        <translation>Letzter</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Max</source>
        <translation>Max</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Mean</source>
        <translation>Mittel</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Quantity</source>
        <translation>Größe</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>RMS</source>
        <translation>RMS</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Messwerte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples/s</source>
        <translation>Messwerte/s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per h</source>
        <translation>Steigung pro h</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per s</source>
        <translation>Steigung pro s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Std dev</source>
        <translation>Std-Abw</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time covered</source>
        <translation>Abgedeckte Zeit</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Unit</source>
        <translation>Einheit</translation>
    </message>
</context>
<context>
    <name>StatisticsView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Gaps are left out of energy and time covered.</source>
        <translation>Lücken zählen nicht zu Energie und abgedeckter Zeit.</translation>
    </message>
</context>
<context>
    <name>Status</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>fehlgeschlagen</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>given up</source>
        <translation>aufgegeben</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>new</source>
        <translation>neu</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>on its way</source>
        <translation>unterwegs</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>paused (suspended)</source>
        <translation>angehalten (ausgesetzt)</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>queued</source>
        <translation>in Warteschlange</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replaced</source>
        <translation>ersetzt</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>unbekannt</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits (deferred)</source>
        <translation>wartet (zurückgestellt)</translation>
    </message>
</context>
<context>
    <name>StatusBar</name>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>, stopped</source>
        <translation>, angehalten</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/status_bar.py"/>
        <source>, {n} failed</source>
        <translation>
            <numerusform>, {n} fehlgeschlagen</numerusform>
            <numerusform>, {n} fehlgeschlagen</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch under way</source>
        <translation>Stapel läuft</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch {done} of {total}</source>
        <translation>Stapel {done} von {total}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Commands under way</source>
        <translation>Laufende Befehle</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links</source>
        <translation>Verbindungen</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links with traffic; a filled mark means bytes in the last second.</source>
        <translation>Verbindungen mit Verkehr; eine gefüllte Marke bedeutet Bytes in der letzten Sekunde.</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Log size</source>
        <translation>Größe des Logs</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Messages a second</source>
        <translation>Nachrichten pro Sekunde</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Mode</source>
        <translation>Modus</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>REPLAY</source>
        <translation>WIEDERGABE</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Team database</source>
        <translation>Team-Datenbank</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>live</source>
        <translation>live</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {count}, {size}</source>
        <translation>Log {count}, {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {size}</source>
        <translation>Log {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>nothing waits</source>
        <translation>nichts wartet</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>read only</source>
        <translation>nur lesen</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>team: {word}</source>
        <translation>Team: {word}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{device} {out}TX {into}RX</source>
        <translation>{device} {out}TX {into}RX</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{n} of {total} links busy</source>
        <translation>{n} von {total} Verbindungen aktiv</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{rate} msg/s</source>
        <translation>{rate} Nachr./s</translation>
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
        <translation>App</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Device messaging</source>
        <translation>Gerätenachrichten</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Hardware</source>
        <translation>Hardware</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>IN</source>
        <translation>EIN</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>OUT</source>
        <translation>AUS</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>The fourteen steps</source>
        <translation>Die vierzehn Schritte</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>answer</source>
        <translation>Antwort</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>click</source>
        <translation>Klick</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>decode</source>
        <translation>dekodieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>done</source>
        <translation>erledigt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>effects</source>
        <translation>Wirkungen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>encode</source>
        <translation>kodieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>gatekeeper</source>
        <translation>Sendeprüfung</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>matched</source>
        <translation>zugeordnet</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>meter</source>
        <translation>Zähler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>network</source>
        <translation>Netzwerk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>not reached</source>
        <translation>nicht erreicht</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>queue</source>
        <translation>Warteschlange</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>request</source>
        <translation>Anfrage</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>saved</source>
        <translation>gespeichert</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>seen</source>
        <translation>gesehen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>to come</source>
        <translation>kommt noch</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>{seconds} s after the click</source>
        <translation>{seconds} s nach dem Klick</translation>
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
        <translation>DC-Seite {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Grid</source>
        <translation>Netz</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Inverter</source>
        <translation>Wechselrichter</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Load</source>
        <translation>Last</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>charging</source>
        <translation>lädt</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed</source>
        <translation>verbraucht</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed {value}</source>
        <translation>verbraucht {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>demand {value}</source>
        <translation>Mittelwert {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>discharging</source>
        <translation>entlädt</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>drawing</source>
        <translation>bezieht</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>efficiency {value}</source>
        <translation>Wirkungsgrad {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>export</source>
        <translation>Lieferung</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding back</source>
        <translation>speist zurück</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding in</source>
        <translation>speist ein</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>generated {value}</source>
        <translation>erzeugt {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>import</source>
        <translation>Bezug</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>no flow</source>
        <translation>kein Fluss</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>not reported</source>
        <translation>nicht gemeldet</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>peak demand {value}</source>
        <translation>Maximum {value}</translation>
    </message>
</context>
<context>
    <name>SystemPanel</name>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Choose a battery system in the tree on the left: {names}.</source>
        <translation>Wählen Sie links im Baum ein Batteriesystem: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Connect it first.</source>
        <translation>Verbinden Sie das Gerät zuerst.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>It is connected: its next packet is shown here.</source>
        <translation>Es ist verbunden: Sein nächstes Paket wird hier gezeigt.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>No device of this workspace tells battery and grid power.</source>
        <translation>Kein Gerät dieses Arbeitsbereichs meldet Batterie- und Netzleistung.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Picture of the system</source>
        <translation>Bild des Systems</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>System</source>
        <translation>System</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} has sent no telemetry since this workspace was opened.
{why}</source>
        <translation>{name} hat seit dem Öffnen dieses Arbeitsbereichs keine Telemetrie gesendet.
{why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} tells no battery and grid power.
Choose a battery system in the tree: {names}.</source>
        <translation>{name} meldet keine Batterie- und Netzleistung.
Wählen Sie im Baum ein Batteriesystem: {names}.</translation>
    </message>
</context>
<context>
    <name>SystemPicture</name>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Flows of power</source>
        <translation>Leistungsflüsse</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Last packet {age} s ago: these are old values.</source>
        <translation>Letztes Paket vor {age} s: Dies sind alte Werte.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>The widest arrow is {power}.</source>
        <translation>Der breiteste Pfeil ist {power}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>charge {charge}</source>
        <translation>Ladung {charge}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>mode {mode}</source>
        <translation>Modus {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>{part}, charge {charge}</source>
        <translation>{part}, Ladung {charge}</translation>
    </message>
</context>
<context>
    <name>TargetField</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The name must end with {suffix}.</source>
        <translation>Der Name muss mit {suffix} enden.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>There is no folder {folder}. Choose another one.</source>
        <translation>Es gibt keinen Ordner {folder}. Wählen Sie einen anderen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name} exists already. Choose another name.</source>
        <translation>{name} gibt es bereits. Wählen Sie einen anderen Namen.</translation>
    </message>
</context>
<context>
    <name>Team</name>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Connecting to the team database.</source>
        <translation>Die Verbindung zur Team-Datenbank wird aufgebaut.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is switched off; nothing leaves this computer.</source>
        <translation>Sie ist ausgeschaltet; nichts verlässt diesen Computer.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again at {time}. What comes meanwhile is kept and sent then.</source>
        <translation>Um {time} wird es erneut versucht. Was inzwischen anfällt, wird aufbewahrt und dann gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again when its settings are saved or the workspace is opened.</source>
        <translation>Es wird erneut versucht, wenn die Einstellungen gespeichert werden oder der Arbeitsbereich geöffnet wird.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Last time everything was there: {time}.</source>
        <translation>Zuletzt war alles dort: {time}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Rows that are not in the team database yet: {count}.</source>
        <translation>Zeilen, die noch nicht in der Team-Datenbank sind: {count}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Sent so far: samples {samples}, interactions {interactions}.</source>
        <translation>Bisher gesendet: Messwerte {samples}, Vorgänge {interactions}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>The team database has everything.</source>
        <translation>Die Team-Datenbank hat alles.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>What is new is being sent to the team database.</source>
        <translation>Neues wird an die Team-Datenbank gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>connecting</source>
        <translation>verbindet</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>held up</source>
        <translation>aufgehalten</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>not reachable</source>
        <translation>nicht erreichbar</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>off</source>
        <translation>aus</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>sending</source>
        <translation>sendet</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>stopped</source>
        <translation>angehalten</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>up to date</source>
        <translation>aktuell</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/team_state.py"/>
        <source>{count} waiting</source>
        <translation>
            <numerusform>{count} wartet</numerusform>
            <numerusform>{count} warten</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>TeamDialog</name>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Push this workspace to the team database</source>
        <translation>Diesen Arbeitsbereich in die Team-Datenbank ü&amp;bertragen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Test the connection</source>
        <translation>Verbindung &amp;testen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Address</source>
        <translation>Adresse</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connecting to {name}...</source>
        <translation>Verbindung zu {name} wird aufgebaut...</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connects and looks. Nothing is written to the database.</source>
        <translation>Verbindet sich und sieht nach. In die Datenbank wird nichts geschrieben.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>For example {example}; ?sslmode=verify-full behind it asks for encryption.</source>
        <translation>Zum Beispiel {example}; ?sslmode=verify-full dahinter verlangt Verschlüsselung.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Frames: the bytes on the wire.
Secrets: passwords, keys and tokens, also those inside parameters and results.
Devices with their addresses and settings, and this workspace&apos;s file.</source>
        <translation>Frames: die Bytes auf der Leitung.
Geheimnisse: Passwörter, Schlüssel und Token, auch die in Parametern und Ergebnissen.
Geräte mit ihren Adressen und Einstellungen sowie die Datei dieses Arbeitsbereichs.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>How the push is now</source>
        <translation>Stand der Übertragung</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>It is switched off.</source>
        <translation>Sie ist ausgeschaltet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Keep the password for this session only</source>
        <translation>Passwort nur für diese Sitzung behalten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Leave without saving</source>
        <translation>Ohne Speichern verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Left empty, the one that is kept for this address is used, or a .pgpass file.</source>
        <translation>Bleibt das Feld leer, wird das für diese Adresse gespeicherte verwendet oder eine .pgpass-Datei.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Now: {word}. {text}</source>
        <translation>Jetzt: {word}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Otherwise it goes to the keyring of this computer. It never stands in the workspace or the log.</source>
        <translation>Sonst kommt es in den Schlüsselbund dieses Computers. Im Arbeitsbereich oder Log steht es nie.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Password</source>
        <translation>Passwort</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Samples: meter, quantity, unit, time, value, and the meter&apos;s own time.
Interactions: meter, command, status, times, parameters, result and failure.
The name of this workspace, and a random id for it.</source>
        <translation>Messwerte: Zähler, Größe, Einheit, Zeit, Wert und die Zeit des Zählers selbst.
Vorgänge: Zähler, Befehl, Status, Zeiten, Parameter, Ergebnis und Fehlergrund.
Der Name dieses Arbeitsbereichs und eine zufällige ID dafür.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Save the changes</source>
        <translation>Änderungen speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Start the push</source>
        <translation>Übertragung starten</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Still needed: an address of a database.</source>
        <translation>Noch nötig: die Adresse einer Datenbank.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Stop the push</source>
        <translation>Übertragung beenden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Team database</source>
        <translation>Team-Datenbank</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>The test was stopped.</source>
        <translation>Der Test wurde abgebrochen.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>There was no result in {n} s. Check the address, then test again.</source>
        <translation>Nach {n} s lag kein Ergebnis vor. Prüfen Sie die Adresse und testen Sie erneut.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What goes there</source>
        <translation>Was dorthin geht</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What never leaves</source>
        <translation>Was nie hinausgeht</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>While this workspace is open, what is new in it is copied to a PostgreSQL that a team shares, for dashboards and reports. Nothing on the bench waits for it; what it misses is sent later.</source>
        <translation>Solange dieser Arbeitsbereich geöffnet ist, wird Neues daraus in eine PostgreSQL-Datenbank kopiert, die sich ein Team teilt, für Dashboards und Berichte. Nichts am Messplatz wartet darauf; Verpasstes wird später gesendet.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>{variable} is set in the environment of this program and is used.</source>
        <translation>{variable} ist in der Umgebung dieses Programms gesetzt und wird verwendet.</translation>
    </message>
</context>
<context>
    <name>TextView</name>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Control characters</source>
        <translation>Steuerzeichen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Copy text</source>
        <translation>Text kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Next</source>
        <translation>Nächste</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Places found</source>
        <translation>Fundstellen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Previous</source>
        <translation>Vorige</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Search this text</source>
        <translation>In diesem Text suchen</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>The whole text as it was received, to the clipboard</source>
        <translation>Den gesamten Text wie empfangen in die Zwischenablage</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>not found</source>
        <translation>nicht gefunden</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>{at} of {count}</source>
        <translation>{at} von {count}</translation>
    </message>
</context>
<context>
    <name>ThresholdAlarms</name>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is no longer watched for the threshold {threshold}.</source>
        <translation>{name} wird nicht mehr auf den Schwellwert {threshold} überwacht.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value} again, within the threshold {threshold}.</source>
        <translation>{name} ist wieder {value}, innerhalb des Schwellwerts {threshold}.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, above the threshold {threshold}.</source>
        <translation>{name} ist {value}, über dem Schwellwert {threshold}.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, below the threshold {threshold}.</source>
        <translation>{name} ist {value}, unter dem Schwellwert {threshold}.</translation>
    </message>
</context>
<context>
    <name>ThresholdDialog</name>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add a threshold</source>
        <translation>Schwellwert hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add the threshold</source>
        <translation>Schwellwert hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Choose which curves the threshold is of.</source>
        <translation>Wählen Sie, für welche Kurven der Schwellwert gilt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve in {unit}</source>
        <translation>Alle Kurven in {unit}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve without a unit</source>
        <translation>Alle Kurven ohne Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>How far it has to come back before it counts as within again.</source>
        <translation>Wie weit der Wert zurückkommen muss, bevor er wieder als innerhalb gilt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Hysteresis</source>
        <translation>Hysterese</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave as it was</source>
        <translation>So lassen, wie es war</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave without adding</source>
        <translation>Ohne Hinzufügen verlassen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Only {curve}</source>
        <translation>Nur {curve}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Remove the threshold</source>
        <translation>Schwellwert entfernen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Save the threshold</source>
        <translation>Schwellwert speichern</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Stands at its line.</source>
        <translation>Steht an seiner Linie.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Still needed: {what}.</source>
        <translation>Noch nötig: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Tell when a value is</source>
        <translation>Melden, wenn ein Wert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Threshold</source>
        <translation>Schwellwert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Told as</source>
        <translation>Melden als</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>What will be told</source>
        <translation>Was gemeldet wird</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Which curves</source>
        <translation>Welche Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value</source>
        <translation>ein Wert</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value that is a number</source>
        <translation>ein Wert, der eine Zahl ist</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>above the threshold</source>
        <translation>über dem Schwellwert liegt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>below the threshold</source>
        <translation>unter dem Schwellwert liegt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>which curves</source>
        <translation>welche Kurven</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is above {limit}, over when one is {back} or less.</source>
        <translation>{who}: Meldung als {severity}, sobald ein Wert über {limit} liegt; vorbei, wenn er {back} oder weniger beträgt.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is below {limit}, over when one is {back} or more.</source>
        <translation>{who}: Meldung als {severity}, sobald ein Wert unter {limit} liegt; vorbei, wenn er {back} oder mehr beträgt.</translation>
    </message>
</context>
<context>
    <name>TrialPage</name>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it</source>
        <translation>&amp;Benennen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it without a good test</source>
        <translation>Ohne guten Test &amp;benennen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Passwords and keys, where the device wants them</source>
        <translation>Passwörter und Schlüssel, wo das Gerät sie verlangt</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Reached by</source>
        <translation>Erreicht über</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Serial number</source>
        <translation>Seriennummer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Noch nötig: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test a&amp;gain</source>
        <translation>Erneut &amp;testen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test of {name}</source>
        <translation>Test von {name}</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>The test is under way.</source>
        <translation>Der Test läuft.</translation>
    </message>
</context>
<context>
    <name>Value</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>no</source>
        <translation>nein</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>yes</source>
        <translation>ja</translation>
    </message>
</context>
<context>
    <name>ValueTree</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n entries</source>
        <translation>
            <numerusform>%n Eintrag</numerusform>
            <numerusform>%n Einträge</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>(nothing)</source>
        <translation>(nichts)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy name and value</source>
        <translation>Name und Wert kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy value</source>
        <translation>Wert kopieren</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Name</source>
        <translation>Name</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Unit</source>
        <translation>Einheit</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Wert</translation>
    </message>
</context>
<context>
    <name>Verdict</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>cannot be checked here</source>
        <translation>hier nicht prüfbar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>genuine</source>
        <translation>echt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: key of another kind</source>
        <translation>nicht geprüft: Schlüssel anderer Art</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: no key</source>
        <translation>nicht geprüft: kein Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: unusable key</source>
        <translation>nicht geprüft: unbrauchbarer Schlüssel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not genuine</source>
        <translation>nicht echt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not readable</source>
        <translation>nicht lesbar</translation>
    </message>
</context>
<context>
    <name>ViewTabs</name>
    <message>
        <location filename="../../ui/views.py"/>
        <source>More</source>
        <translation>Mehr</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>The other views. View &gt; Go to has all of them.</source>
        <translation>Die übrigen Ansichten. Ansicht &gt; Gehe zu hat alle.</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>Views</source>
        <translation>Ansichten</translation>
    </message>
</context>
<context>
    <name>WayDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way</source>
        <translation>Weg hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way {name}</source>
        <translation>Weg {name} hinzufügen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Another way to {name}</source>
        <translation>Weiterer Weg zu {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>As it is called in menus, for example: through the head-end.</source>
        <translation>Wie er in Menüs heißt, zum Beispiel: über das Head-End.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>It had no name, because it was the only one.</source>
        <translation>Er hatte keinen Namen, weil er der einzige war.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the new way</source>
        <translation>Name des neuen Wegs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the way in use</source>
        <translation>Name des verwendeten Wegs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>On the new way it stands in</source>
        <translation>Auf dem neuen Weg gehört es zu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{name} has a way of that name already.</source>
        <translation>{name} hat bereits einen Weg dieses Namens.</translation>
    </message>
</context>
<context>
    <name>WelcomePage</name>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A bench for smart meters: connect, command, measure, replay.</source>
        <translation>Ein Messplatz für intelligente Zähler: verbinden, befehlen, messen, wiedergeben.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A workspace or export that somebody sent: read, filter, replay. Nothing in it is changed.</source>
        <translation>Ein zugesandter Arbeitsbereich oder Export: lesen, filtern, wiedergeben. Nichts darin wird geändert.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>By cable, network or gateway. It is looked for, and tested before anything is kept.</source>
        <translation>Über Kabel, Netzwerk oder Gateway. Der Zähler wird gesucht und getestet, bevor etwas gespeichert wird.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Connect a meter</source>
        <translation>Zähler verbinden</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Ctrl+Shift+P finds every action, device and command by typing.</source>
        <translation>Strg+Umschalt+P findet jede Aktion, jedes Gerät und jeden Befehl durch Tippen.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Files used lately</source>
        <translation>Zuletzt verwendete Dateien</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open a log</source>
        <translation>Log öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open the demo site</source>
        <translation>Demo-Standort öffnen</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Simulated meters of every kind. No hardware, nothing to set up.</source>
        <translation>Simulierte Zähler aller Arten. Keine Hardware, nichts einzurichten.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Used lately</source>
        <translation>Zuletzt verwendet</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Welcome</source>
        <translation>Willkommen</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   in {folder}</translation>
    </message>
</context>
<context>
    <name>WherePage</name>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Look for it</source>
        <translation>&amp;Suchen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Try the credentials</source>
        <translation>&amp;Zugangsdaten versuchen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Wait for it</source>
        <translation>&amp;Warten</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Noch nötig: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What the search will do</source>
        <translation>Was die Suche tut</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What will be done</source>
        <translation>Was getan wird</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Where is it?</source>
        <translation>Wo ist es?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>every network of this computer</source>
        <translation>jedes Netzwerk dieses Computers</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>this computer only</source>
        <translation>nur dieser Computer</translation>
    </message>
</context>
<context>
    <name>_Allowed</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: =. An operation is a name; what it is given stands in the parameter.</source>
        <translation>Abgelehnt: =. Eine Operation ist ein Name; was ihr übergeben wird, steht im Parameter.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: a character outside printable ASCII. Write a byte as two hex digits in brackets: [0D].</source>
        <translation>Abgelehnt: ein Zeichen außerhalb des druckbaren ASCII. Schreiben Sie ein Byte als zwei Hexziffern in Klammern: [0D].</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The gateway understands no escapes, so it would not store the directive.</source>
        <translation>Abgelehnt: {char}. Das Gateway versteht keine Escape-Zeichen und würde die Direktive nicht speichern.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The id becomes a file name: only letters, digits, _ and -.</source>
        <translation>Abgelehnt: {char}. Die ID wird zum Dateinamen: nur Buchstaben, Ziffern, _ und -.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>a blank</source>
        <translation>ein Leerzeichen</translation>
    </message>
</context>
<context>
    <name>_NameEditor</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Name of the chart</source>
        <translation>Name des Diagramms</translation>
    </message>
</context>
</TS>
