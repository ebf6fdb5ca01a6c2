<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="en" sourcelanguage="en">
<context>
    <name>Arrivals</name>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>One log is open at a time: {name}. The {n} others were left alone.</source>
        <translation>
            <numerusform>One log is open at a time: {name}. The {n} other was left alone.</numerusform>
            <numerusform>One log is open at a time: {name}. The {n} others were left alone.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices</source>
        <translation>
            <numerusform>Read {n} device</numerusform>
            <numerusform>Read {n} devices</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices from {name} into this workspace?</source>
        <translation>
            <numerusform>Read {n} device from {name} into this workspace?</numerusform>
            <numerusform>Read {n} devices from {name} into this workspace?</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} read</source>
        <translation>
            <numerusform>{n} device of {name} read</numerusform>
            <numerusform>{n} devices of {name} read</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} were read.</source>
        <translation>
            <numerusform>{n} device of {name} was read.</numerusform>
            <numerusform>{n} devices of {name} were read.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} stand in this workspace already and get the settings of the file: {names}.</source>
        <translation>
            <numerusform>{n} stands in this workspace already and gets the settings of the file: {names}.</numerusform>
            <numerusform>{n} stand in this workspace already and get the settings of the file: {names}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} failed</source>
        <translation>
            <numerusform>{n} failed</numerusform>
            <numerusform>{n} failed</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} replaced</source>
        <translation>
            <numerusform>{n} replaced</numerusform>
            <numerusform>{n} replaced</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} under way</source>
        <translation>
            <numerusform>{n} under way</numerusform>
            <numerusform>{n} under way</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} waiting</source>
        <translation>
            <numerusform>{n} waiting</numerusform>
            <numerusform>{n} waiting</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BatchPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Send to {n} meters</source>
        <translation>
            <numerusform>Send to {n} meter</numerusform>
            <numerusform>Send to {n} meters</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Start {flow} on {n} meters</source>
        <translation>
            <numerusform>Start {flow} on {n} meter</numerusform>
            <numerusform>Start {flow} on {n} meters</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Take {n} chosen meters</source>
        <translation>
            <numerusform>Take {n} chosen meter</numerusform>
            <numerusform>Take {n} chosen meters</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{name}: {n} meters</source>
        <translation>
            <numerusform>{name}: {n} meter</numerusform>
            <numerusform>{name}: {n} meters</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{n} chosen meters</source>
        <translation>
            <numerusform>{n} chosen meter</numerusform>
            <numerusform>{n} chosen meters</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{what} on {n} meters</source>
        <translation>
            <numerusform>{what} on {n} meter</numerusform>
            <numerusform>{what} on {n} meters</numerusform>
        </translation>
    </message>
</context>
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
    <name>CheckDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>%n differences.</source>
        <translation>
            <numerusform>%n difference.</numerusform>
            <numerusform>%n differences.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking… %n differences so far.</source>
        <translation>
            <numerusform>Checking… %n difference so far.</numerusform>
            <numerusform>Checking… %n differences so far.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>It was stopped. %n differences until then.</source>
        <translation>
            <numerusform>It was stopped. %n difference until then.</numerusform>
            <numerusform>It was stopped. %n differences until then.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ComparePanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences</source>
        <translation>
            <numerusform>{n} difference</numerusform>
            <numerusform>{n} differences</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences were written to {path}.</source>
        <translation>
            <numerusform>{n} difference was written to {path}.</numerusform>
            <numerusform>{n} differences were written to {path}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>DeviceTreeModel</name>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} wait</source>
        <translation>
            <numerusform>{n} waits</numerusform>
            <numerusform>{n} wait</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {n} wait</source>
        <translation>
            <numerusform>{state}, {n} waits</numerusform>
            <numerusform>{state}, {n} wait</numerusform>
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
    <name>LabVerbs</name>
    <message numerus="yes">
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name}: {n} curves were written to {path}.</source>
        <translation>
            <numerusform>{name}: {n} curve was written to {path}.</numerusform>
            <numerusform>{name}: {n} curves were written to {path}.</numerusform>
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
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>{rows} rows</source>
        <translation>
            <numerusform>{rows} row</numerusform>
            <numerusform>{rows} rows</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} and the {n} devices below it from this workspace?</source>
        <translation>
            <numerusform>Remove {name} and the {n} device below it from this workspace?</numerusform>
            <numerusform>Remove {name} and the {n} devices below it from this workspace?</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>{n} of its commands are not finished; those that wait may be sent.</source>
        <translation>
            <numerusform>{n} of its commands is not finished; if it waits, it may be sent.</numerusform>
            <numerusform>{n} of its commands are not finished; those that wait may be sent.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Objects</name>
    <message numerus="yes">
        <location filename="../../ui/models/objects.py"/>
        <source>{count} entries</source>
        <translation>
            <numerusform>{count} entry</numerusform>
            <numerusform>{count} entries</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ObjectsPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/objects.py"/>
        <source>{count} objects, list of {time} {zone}</source>
        <translation>
            <numerusform>{count} object, list of {time} {zone}</numerusform>
            <numerusform>{count} objects, list of {time} {zone}</numerusform>
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
    <name>Reading</name>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} attempts</source>
        <translation>
            <numerusform>{count} attempt</numerusform>
            <numerusform>{count} attempts</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} lines</source>
        <translation>
            <numerusform>{count} line</numerusform>
            <numerusform>{count} lines</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} rows, {channels} channels</source>
        <translation>
            <numerusform>{count} row, {channels} channels</numerusform>
            <numerusform>{count} rows, {channels} channels</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} values</source>
        <translation>
            <numerusform>{count} value</numerusform>
            <numerusform>{count} values</numerusform>
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
    <name>ReferenceDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration} from {first}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {count} sample over {duration} from {first}, {gaps}.</numerusform>
            <numerusform>{name}: {count} samples over {duration} from {first}, {gaps}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {count} sample over {duration}, {gaps}.</numerusform>
            <numerusform>{name}: {count} samples over {duration}, {gaps}.</numerusform>
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
    <name>SearchPage</name>
    <message numerus="yes">
        <location filename="../../ui/wizard/search.py"/>
        <source>The search was stopped after {n} tries.</source>
        <translation>
            <numerusform>The search was stopped after {n} try.</numerusform>
            <numerusform>The search was stopped after {n} tries.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ShareDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} attachments were left out: what stands in a picture cannot be replaced.</source>
        <translation>
            <numerusform>{n} attachment was left out: what stands in a picture cannot be replaced.</numerusform>
            <numerusform>{n} attachments were left out: what stands in a picture cannot be replaced.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} frames were written to {file}.</source>
        <translation>
            <numerusform>{n} frame was written to {file}.</numerusform>
            <numerusform>{n} frames were written to {file}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} interactions were written to {file}.</source>
        <translation>
            <numerusform>{n} interaction was written to {file}.</numerusform>
            <numerusform>{n} interactions were written to {file}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>StatusBar</name>
    <message numerus="yes">
        <location filename="../../ui/status_bar.py"/>
        <source>, {n} failed</source>
        <translation>
            <numerusform>, {n} failed</numerusform>
            <numerusform>, {n} failed</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Team</name>
    <message numerus="yes">
        <location filename="../../ui/team_state.py"/>
        <source>{count} waiting</source>
        <translation>
            <numerusform>{count} waiting</numerusform>
            <numerusform>{count} waiting</numerusform>
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
