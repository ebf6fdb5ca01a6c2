<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="en" sourcelanguage="en">
<context>
    <name>BytesTab</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes from {link}</source>
        <translation>
            <numerusform>%n byte from {link}</numerusform>
            <numerusform>%n bytes from {link}</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes to {link}</source>
        <translation>
            <numerusform>%n byte to {link}</numerusform>
            <numerusform>%n bytes to {link}</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>DirectiveList</name>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n cannot be read.</source>
        <translation>
            <numerusform>%n cannot be read.</numerusform>
            <numerusform>%n cannot be read.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n directives are stored; the public device code executes none.</source>
        <translation>
            <numerusform>%n directive is stored; the public device code executes none.</numerusform>
            <numerusform>%n directives are stored; the public device code executes none.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>LogPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>%n new below</source>
        <translation>
            <numerusform>%n new below</numerusform>
            <numerusform>%n new below</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ProfileModel</name>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no values from {time} on for %n periods.</source>
        <translation>
            <numerusform>The meter sent no values from {time} on for %n period.</numerusform>
            <numerusform>The meter sent no values from {time} on for %n periods.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>gap: %n periods</source>
        <translation>
            <numerusform>gap: %n period</numerusform>
            <numerusform>gap: %n periods</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ReadingsPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/readings.py"/>
        <source>%n periods are missing</source>
        <translation>
            <numerusform>%n period is missing</numerusform>
            <numerusform>%n periods are missing</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ResultView</name>
    <message numerus="yes">
        <location filename="../../ui/panels/accuracy.py"/>
        <source>%n rows are on the clipboard.</source>
        <translation>
            <numerusform>%n row is on the clipboard.</numerusform>
            <numerusform>%n rows are on the clipboard.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ValueTree</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n entries</source>
        <translation>
            <numerusform>%n entry</numerusform>
            <numerusform>%n entries</numerusform>
        </translation>
    </message>
</context>
</TS>
