<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="tr" sourcelanguage="en">
<context>
    <name>AboutDialog</name>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>&amp;Copy the versions</source>
        <translation>&amp;Sürümleri kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>A bench for smart meters: connect, command, measure, replay. Free software under the Apache License 2.0; Qt is used under the LGPL and can be replaced in the folder of the program.</source>
        <translation>Akıllı sayaçlar için bir çalışma tezgâhı: bağlanın, komut verin, ölçün, yeniden oynatın. Apache Lisansı 2.0 altında özgür yazılım; Qt, LGPL altında kullanılır ve programın klasöründe değiştirilebilir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>About Meterwright</source>
        <translation>Meterwright hakkında</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Copied</source>
        <translation>Kopyalandı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence</source>
        <translation>Lisans</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Licence of {name}</source>
        <translation>{name} lisansı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Meterwright {version}</source>
        <translation>Meterwright {version}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Part</source>
        <translation>Bileşen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Parts and their licences</source>
        <translation>Bileşenler ve lisansları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Ayarlar: {config}
Çalışma alanları: {data}
Program günlüğü ve çökme raporları: {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>Version</source>
        <translation>Sürüm</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>{name} is under {licence}. Its text is not among the installed files.</source>
        <translation>{name}, {licence} lisansı altındadır. Metni kurulu dosyalar arasında yok.</translation>
    </message>
</context>
<context>
    <name>Accuracy</name>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A meter silent for longer breaks it off.</source>
        <translation>Daha uzun susan sayaç ölçümü yarıda keser.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>A repeat ends after</source>
        <translation>Bir tekrarın bitişi</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Accuracy test: {name}</source>
        <translation>Doğruluk testi: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At every load point the error is within the limit, its uncertainty included.</source>
        <translation>Her yük noktasında hata, belirsizliği dahil sınırın içinde.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>At load point {points} the limit lies within the uncertainty: measure longer, or with a better reference.</source>
        <translation>Şu yük noktasında sınır belirsizliğin içinde kalıyor: {points}. Daha uzun süre veya daha iyi bir referansla ölçün.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before every load point.</source>
        <translation>Her yük noktasından önce.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Before the first load point.</source>
        <translation>İlk yük noktasından önce.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Certificate number</source>
        <translation>Sertifika numarası</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Choose a device and one of its quantities.</source>
        <translation>Bir cihaz ve büyüklüklerinden birini seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Class</source>
        <translation>Sınıf</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Connected</source>
        <translation>Bağlantı şekli</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Coverage factor k</source>
        <translation>Kapsam faktörü k</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Current (A)</source>
        <translation>Akım (A)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Drift since</source>
        <translation>O zamandan beri kayma</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration</source>
        <translation>Süre</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Duration (s)</source>
        <translation>Süre (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Ended {time}</source>
        <translation>Bitiş {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Energy</source>
        <translation>Enerji</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error</source>
        <translation>Hata</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Error (%)</source>
        <translation>Hata (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Everything that went in and came out</source>
        <translation>Giren ve çıkan her şey</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Expanded uncertainty</source>
        <translation>Genişletilmiş belirsizlik</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Factor</source>
        <translation>Çarpan</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the certificate.</source>
        <translation>Sertifikadan.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>From the meter&apos;s plate.</source>
        <translation>Sayacın etiketinden.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>How far the time of a value may be off; a constant delay does not count.</source>
        <translation>Bir değerin zamanının ne kadar sapabileceği; sabit gecikme sayılmaz.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It is corrected.</source>
        <translation>Düzeltilir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>It stands on the meter.</source>
        <translation>Sayacın üzerinde yazar.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Kind of value</source>
        <translation>Değer türü</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Known error</source>
        <translation>Bilinen hata</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit</source>
        <translation>Sınır</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit from</source>
        <translation>Sınırın kaynağı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit of its class</source>
        <translation>Sınıfının sınırı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Limit ± (%)</source>
        <translation>Sınır ± (%)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load</source>
        <translation>Yük</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point</source>
        <translation>Yük noktası</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {number}: {text}</source>
        <translation>Yük noktası {number}: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Load point {points} has no limit, so no verdict.</source>
        <translation>Yük noktası {points} için sınır yok, bu nedenle karar yok.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Longest gap</source>
        <translation>En uzun boşluk</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Mean power (W)</source>
        <translation>Ortalama güç (W)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter constant</source>
        <translation>Sayaç sabiti</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test</source>
        <translation>Test edilen sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Meter under test (Wh)</source>
        <translation>Test edilen sayaç (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Name of the test</source>
        <translation>Testin adı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Of that uncertainty; mostly 2.</source>
        <translation>O belirsizliğin; çoğunlukla 2.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Phases</source>
        <translation>Fazlar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Power factor</source>
        <translation>Güç faktörü</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference</source>
        <translation>Referans</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Reference (Wh)</source>
        <translation>Referans (Wh)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeat</source>
        <translation>Tekrar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Repeats</source>
        <translation>Tekrarlar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Resolution</source>
        <translation>Çözünürlük</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Rules</source>
        <translation>Kurallar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Settling</source>
        <translation>Oturma</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start (UTC)</source>
        <translation>Başlangıç (UTC)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Start and stop at readings of</source>
        <translation>Başlatıp durduran okumalar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Take the meter that is read more seldom.</source>
        <translation>Daha seyrek okunan sayacı seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The error is beyond the limit at load point {points}.</source>
        <translation>Şu yük noktasında hata sınırın dışında: {points}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>The smallest step that the meter&apos;s value makes.</source>
        <translation>Sayaç değerinin attığı en küçük adım.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>This class has no limits for meters connected so.</source>
        <translation>Bu sınıfın böyle bağlanan sayaçlar için sınırı yok.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Timing</source>
        <translation>Zamanlama</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Transformer ratio, else 1.</source>
        <translation>Trafo oranı, yoksa 1.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Voltage (V)</source>
        <translation>Gerilim (V)</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Warm-up</source>
        <translation>Isınma</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>What it may have moved since.</source>
        <translation>O zamandan beri ne kadar kaymış olabileceği.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Where there is no certificate.</source>
        <translation>Sertifika yoksa.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>Without one, state a limit for each load point.</source>
        <translation>Sınıf yoksa her yük noktası için bir sınır belirtin.</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of energy</source>
        <translation>enerji sayacı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a counter of pulses</source>
        <translation>darbe sayacı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>a time</source>
        <translation>bir süre</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>all phases</source>
        <translation>tüm fazlar</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>an energy of the reference</source>
        <translation>referansın bir enerjisi</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>broken off</source>
        <translation>yarıda kesildi</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>class {name}, {standard}</source>
        <translation>sınıf {name}, {standard}</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>directly</source>
        <translation>doğrudan</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>done</source>
        <translation>bitti</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>fail</source>
        <translation>kaldı</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>later</source>
        <translation>sonra</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>measuring</source>
        <translation>ölçülüyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>no verdict</source>
        <translation>karar yok</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>none</source>
        <translation>yok</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>one phase</source>
        <translation>tek faz</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pass</source>
        <translation>geçti</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>power</source>
        <translation>güç</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>pulses</source>
        <translation>darbe</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>set the load</source>
        <translation>yükü ayarlayın</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>settling</source>
        <translation>oturuyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>through current transformers</source>
        <translation>akım trafoları üzerinden</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>undecided</source>
        <translation>kararsız</translation>
    </message>
    <message>
        <location filename="../../ui/models/accuracy.py"/>
        <source>{done} of {planned} load points were measured.</source>
        <translation>{planned} yük noktasından {done} tanesi ölçüldü.</translation>
    </message>
</context>
<context>
    <name>AccuracyPanel</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A test is under way: see Measurement. What is changed here is for the next one.</source>
        <translation>Bir test sürüyor: Ölçüm sekmesine bakın. Burada değiştirilenler sonraki test içindir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy</source>
        <translation>Doğruluk</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} of {count}: {error}, {verdict}.</source>
        <translation>Doğruluk testi: yük noktası {number} / {count}: {error}, {verdict}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Accuracy test: load point {number} was broken off: {reason}.</source>
        <translation>Doğruluk testi: yük noktası {number} yarıda kesildi: {reason}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>An accuracy test compares a meter under test with a reference meter.
No meter has told energy or power yet. Connect both in the tree on the left: as soon as their values come, the test is planned here.</source>
        <translation>Doğruluk testi, test edilen bir sayacı bir referans sayaçla karşılaştırır.
Henüz hiçbir sayaç enerji veya güç bildirmedi. Soldaki ağaçta ikisini de bağlayın: değerleri gelir gelmez test burada planlanır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measurement</source>
        <translation>Ölçüm</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Plan</source>
        <translation>Plan</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results</source>
        <translation>Sonuçlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load of the next one.</source>
        <translation>Sonrakinin yükünü ayarlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This is a recording: a test needs live meters. Open a workspace to measure.</source>
        <translation>Bu bir kayıttır: test için canlı sayaçlar gerekir. Ölçmek için bir çalışma alanı açın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Views of the test</source>
        <translation>Testin görünümleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the test was ended</source>
        <translation>test bitirildi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>the workspace was closed</source>
        <translation>çalışma alanı kapatıldı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, seri numarası {serial}</translation>
    </message>
</context>
<context>
    <name>Actions</name>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;About Meterwright</source>
        <translation>Meterwright &amp;hakkında</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Accuracy test</source>
        <translation>D&amp;oğruluk testi</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Arm writing</source>
        <translation>Yaz&amp;maya izin ver</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Chart</source>
        <translation>&amp;Grafik</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Close the chart</source>
        <translation>Grafiği &amp;kapat</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Compare logs, meters or readings</source>
        <translation>Günlük, sayaç veya okuma &amp;karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Connect</source>
        <translation>&amp;Bağlan</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Disconnect</source>
        <translation>Bağlantıyı &amp;kes</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Duplicate the chart</source>
        <translation>Grafiği çoğa&amp;lt</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Edit the connection...</source>
        <translation>Bağlantıyı dü&amp;zenle...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Export the log...</source>
        <translation>Günlüğü dışa akta&amp;r...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;File</source>
        <translation>&amp;Dosya</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Filter</source>
        <translation>&amp;Filtrele</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Go to</source>
        <translation>Gi&amp;t</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Help</source>
        <translation>&amp;Yardım</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Keyboard shortcuts</source>
        <translation>&amp;Klavye kısayolları</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New chart</source>
        <translation>&amp;Yeni grafik</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;New workspace...</source>
        <translation>&amp;Yeni çalışma alanı...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Open workspace...</source>
        <translation>Çalışma alanı &amp;aç...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Pause or resume the chart</source>
        <translation>Grafiği &amp;duraklat veya sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Quit</source>
        <translation>&amp;Çıkış</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Read everything</source>
        <translation>&amp;Tümünü oku</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Replay a log...</source>
        <translation>Günlüğü yeniden &amp;oynat...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Same time in all charts</source>
        <translation>Tüm grafiklerde aynı &amp;zaman</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Send a command...</source>
        <translation>Komut &amp;gönder...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Share a part of the log...</source>
        <translation>Günlüğün bir bölümünü &amp;paylaş...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Team database...</source>
        <translation>&amp;Ekip veritabanı...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Threshold...</source>
        <translation>&amp;Eşik...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;Undo the last change</source>
        <translation>Son değişikl&amp;iği geri al</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>&amp;View</source>
        <translation>Gö&amp;rünüm</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A battery system as a picture: grid, inverter, load and battery.</source>
        <translation>Resim olarak bir batarya sistemi: şebeke, evirici, yük ve batarya.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A curve computed from others, for example U * I.</source>
        <translation>Başka eğrilerden hesaplanan bir eğri, örneğin U * I.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>A meter against a reference, load point by load point.</source>
        <translation>Bir sayaç bir referansa karşı, yük noktası yük noktası.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Accuracy</source>
        <translation>Doğruluk</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add another &amp;way...</source>
        <translation>Başka &amp;yol ekle...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Add the devices that stand in a TOML or CSV file to this workspace.</source>
        <translation>Bir TOML veya CSV dosyasındaki cihazları bu çalışma alanına ekler.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>All charts show the same range of time and move together.</source>
        <translation>Tüm grafikler aynı zaman aralığını gösterir ve birlikte kayar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Another chart beside these, with curves of its own.</source>
        <translation>Bunların yanına, kendi eğrileri olan bir grafik daha.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Batch</source>
        <translation>Toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Change the name, the place or the connection of this device.</source>
        <translation>Bu cihazın adını, yerini veya bağlantısını değiştirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Charts of what the meters tell.</source>
        <translation>Sayaçların bildirdiklerinin grafikleri.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Chec&amp;k the log...</source>
        <translation>Gü&amp;nlüğü denetle...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose a device first.</source>
        <translation>Önce bir cihaz seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose the way to this meter: directly, or through a head-end.</source>
        <translation>Bu sayaca giden yolu seçtirir: doğrudan veya bir merkez sistem üzerinden.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Choose what is in front of you; it is looked for, tested and saved.</source>
        <translation>Önünüzdeki cihazı seçin; aranır, test edilir ve kaydedilir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close every link and leave.</source>
        <translation>Tüm bağlantıları kapatıp çıkar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Close the link to this device. Commands that wait go on waiting.</source>
        <translation>Bu cihaza bağlantıyı kapatır. Bekleyen komutlar beklemeyi sürdürür.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours of the s&amp;ystem</source>
        <translation>&amp;Sistem renkleri</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Colours, language, times, folders and how long writing stays armed.</source>
        <translation>Renkler, dil, saatler, klasörler ve yazma izninin süresi.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Com&amp;pare with another meter...</source>
        <translation>Başka sayaçla karşı&amp;laştır...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Command p&amp;alette...</source>
        <translation>Komut &amp;paleti...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands of {device} go this way from now on.</source>
        <translation>{device} komutları bundan sonra bu yoldan gider.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commands that change something may be sent for some minutes; then this window only reads again.</source>
        <translation>Bir şeyi değiştiren komutlar birkaç dakika gönderilebilir; sonra bu pencere yeniden yalnızca okur.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commiss&amp;ion...</source>
        <translation>&amp;Devreye al...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commission</source>
        <translation>Devreye al</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Commissioning</source>
        <translation>Devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Compare</source>
        <translation>Karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Connect a &amp;new meter...</source>
        <translation>Ye&amp;ni sayaç bağla...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Curves of a CSV file, a recording or another workspace to compare with.</source>
        <translation>Karşılaştırmak için bir CSV dosyasının, bir kaydın veya başka bir çalışma alanının eğrileri.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Da&amp;rk colours</source>
        <translation>&amp;Koyu renkler</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Dark on light, whatever the desktop says.</source>
        <translation>Masaüstü ne olursa olsun açık zemin üzerinde koyu.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Deri&amp;ved quantity...</source>
        <translation>&amp;Türetilmiş büyüklük...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Devices, commands and the fourteen steps.</source>
        <translation>Cihazlar, komutlar ve on dört adım.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Enter every setting of a meter or gateway, or add a site or grid.</source>
        <translation>Bir sayacın veya ağ geçidinin tüm ayarlarını girin ya da bir saha veya şebeke ekleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every command and every answer, filtered as you like.</source>
        <translation>Her komut ve her yanıt, istediğiniz gibi süzülmüş.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every key of the menus, the charts, the log and the bytes.</source>
        <translation>Menülerin, grafiklerin, günlüğün ve baytların tüm tuşları.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Every view of the centre, also those without a tab now.</source>
        <translation>Ortanın her görünümü, şu an sekmesi olmayanlar da.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Files used &amp;lately</source>
        <translation>&amp;Son kullanılan dosyalar</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Filter the list or log where you are.</source>
        <translation>Bulunduğunuz listeyi veya günlüğü filtreler.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Find any action, device or command by typing.</source>
        <translation>Yazarak herhangi bir işlemi, cihazı veya komutu bulun.</translation>
    </message>
    <message>
        <source>Flo&amp;ws of this device</source>
        <translation type="vanished">Bu cihazın &amp;akışları</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flow</source>
        <translation>Akış</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Flows of this de&amp;vice</source>
        <translation>Bu cihazın &amp;akışları</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Forget the way {way}</source>
        <translation>Yolu unut: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is &amp;online</source>
        <translation>Ağ geçidi çe&amp;vrimiçi</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Gateway is o&amp;ff</source>
        <translation>Ağ geçidi ka&amp;palı</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Give the chart that is shown another name.</source>
        <translation>Gösterilen grafiğe başka bir ad verir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go on working with a workspace: its links open and its log grows.</source>
        <translation>Bir çalışma alanında çalışmayı sürdürür: bağlantıları açılır, günlüğü büyür.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commands of this device.</source>
        <translation>Bu cihazın komutlarına gider.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the commissioning of this meter: its steps, and how far it is.</source>
        <translation>Bu sayacın devreye alınmasına gider: adımları ve ne kadar ilerlediği.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to the flows that suit this device, the run under way and earlier ones.</source>
        <translation>Bu cihaza uygun akışlara, süren yürütmeye ve öncekilere gider.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to {view}</source>
        <translation>Git: {view}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Go to, rename, export, compare or remove what was recorded.</source>
        <translation>Kaydedilenlere gitmek, yeniden adlandırmak, dışa aktarmak, karşılaştırmak veya kaldırmak için.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is &amp;lit</source>
        <translation>Şebeke &amp;enerjili</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Grid is dar&amp;k</source>
        <translation>Şebeke enerji&amp;siz</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Hold the picture still; recording goes on.</source>
        <translation>Görüntüyü durdurur; kayıt sürer.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Commission</source>
        <translation>&amp;Devreye alma yerleşimi</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Lab</source>
        <translation>&amp;Laboratuvar yerleşimi</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Layout &amp;Support</source>
        <translation>D&amp;estek yerleşimi</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Ligh&amp;t colours</source>
        <translation>&amp;Açık renkler</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light on dark, whatever the desktop says.</source>
        <translation>Masaüstü ne olursa olsun koyu zemin üzerinde açık.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Light or dark as the desktop says.</source>
        <translation>Masaüstüne göre açık veya koyu.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Live</source>
        <translation>Canlı</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Log</source>
        <translation>Günlük</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>N&amp;ote...</source>
        <translation>&amp;Not...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Name the time from now on, to find, export and compare it later.</source>
        <translation>Şu andan sonrasına ad verir; sonra bulmak, dışa aktarmak ve karşılaştırmak için.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Named ranges of time, to go to, export and compare.</source>
        <translation>Gitmek, dışa aktarmak ve karşılaştırmak için adlandırılmış zaman aralıkları.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>New device &amp;by hand...</source>
        <translation>Yeni cihazı elle &amp;oluştur...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Nothing has to be armed here: no meter is real.</source>
        <translation>Burada yazma izni gerekmez: hiçbir sayaç gerçek değil.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>OCMF records of charging, and whether they are genuine.</source>
        <translation>Şarjın OCMF kayıtları ve gerçek olup olmadıkları.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Objects</source>
        <translation>Nesneler</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>One command or flow for many devices, from a list or chosen in the tree.</source>
        <translation>Birçok cihaz için tek komut veya akış, listeden ya da ağaçta seçilerek.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a lo&amp;g...</source>
        <translation>&amp;Günlük aç...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open a workspace first.</source>
        <translation>Önce bir çalışma alanı açın.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open one of the workspaces and logs used last.</source>
        <translation>Son kullanılan çalışma alanlarından ve günlüklerden birini açar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;demo site</source>
        <translation>&amp;Demo sahasını aç</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the &amp;log folder</source>
        <translation>&amp;Günlük klasörünü aç</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Open the link to this device.</source>
        <translation>Bu cihaza bağlantıyı açar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Palette</source>
        <translation>Palet</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Pause</source>
        <translation>Duraklat</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Push what is new in this workspace to a PostgreSQL that a team shares.</source>
        <translation>Bu çalışma alanındaki yenilikleri ekibin paylaştığı bir PostgreSQL&apos;e aktarır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;ference curves...</source>
        <translation>&amp;Referans eğrileri...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Re&amp;move the device...</source>
        <translation>&amp;Cihazı kaldır...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reac&amp;h it</source>
        <translation>&amp;Ulaşım yolu</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Reach {device}: {way}</source>
        <translation>{device} için yol: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read</source>
        <translation>Oku</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a site &amp;file...</source>
        <translation>Saha dosyası ok&amp;u...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Read a workspace or export that somebody sent, also a damaged one. Nothing in it is changed.</source>
        <translation>Birinin gönderdiği çalışma alanını veya dışa aktarımı okur, hasarlı olsa da. İçinde hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readings</source>
        <translation>Okumalar</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Readouts, load profiles, clocks and logs that the chosen meter has sent.</source>
        <translation>Seçilen sayacın gönderdiği readout&apos;lar, yük profilleri, saatler ve günlükler.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Recordings</source>
        <translation>Kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Rena&amp;me the chart</source>
        <translation>Grafiği yeniden &amp;adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Replay every command and decode its bytes again, and see what is not as it was recorded.</source>
        <translation>Her komutu yeniden oynat, baytlarını yeniden çöz ve kaydedildiği gibi olmayanı gör.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Report</source>
        <translation>Rapor</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>S&amp;tay armed longer</source>
        <translation>Yazma s&amp;üresini uzat</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save re&amp;port...</source>
        <translation>Rapor kayde&amp;t...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Save the report of the run that is shown as PDF, HTML or JSON.</source>
        <translation>Gösterilen yürütmenin raporunu PDF, HTML veya JSON olarak kaydeder.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say how else this meter can be reached; the way in use stays in use.</source>
        <translation>Bu sayaca başka nasıl ulaşılabileceğini belirtir; kullanılan yol kullanılmaya devam eder.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is off or cannot be reached.</source>
        <translation>Bu ağ geçidinin kapalı veya ulaşılamaz olduğunu bildirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this gateway is on and can be reached.</source>
        <translation>Bu ağ geçidinin açık ve ulaşılabilir olduğunu bildirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has no power.</source>
        <translation>Bu şebekede enerji olmadığını bildirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say that this grid has power again.</source>
        <translation>Bu şebekeye yeniden enerji geldiğini bildirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Say when a quantity goes beyond a limit.</source>
        <translation>Bir büyüklük sınırı aştığında bildirir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between this meter and another one, aligned by command.</source>
        <translation>Bu sayaç ile bir başkası arasındaki farkları komutlara göre hizalanmış gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>See what differs between two of them, aligned by command.</source>
        <translation>İkisi arasındaki farkları komutlara göre hizalanmış gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send</source>
        <translation>Gönder</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Send every read command that needs no parameter.</source>
        <translation>Parametre gerektirmeyen tüm okuma komutlarını gönderir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Sett&amp;ings...</source>
        <translation>Ayar&amp;lar...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Show the record&amp;ings</source>
        <translation>Kayıtları &amp;göster</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Signed records</source>
        <translation>İmzalı kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Simulated meters of every kind, without any hardware.</source>
        <translation>Her türden benzetilmiş sayaç, hiçbir donanım gerekmez.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start a &amp;recording</source>
        <translation>Kaydı &amp;başlat</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Start an empty workspace in a file of its own.</source>
        <translation>Kendi dosyasında boş bir çalışma alanı başlatır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Steps with checks for the chosen device, one after the other, and a report.</source>
        <translation>Seçilen cihaz için denetimli adımlar, sırayla, ve bir rapor.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Support &amp;bundle...</source>
        <translation>Destek pake&amp;ti...</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>System</source>
        <translation>Sistem</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take back what was added, changed or removed last.</source>
        <translation>Son ekleneni, değiştirileni veya kaldırılanı geri alır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take the chart that is shown away. Its samples stay in the log.</source>
        <translation>Gösterilen grafiği kaldırır. Örnekleri günlükte kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this device off the list. Its log stays.</source>
        <translation>Bu cihazı listeden çıkarır. Günlüğü kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Take this way to {device} off the list; the way in use stays.</source>
        <translation>{device} için bu yolu listeden çıkarır; kullanılan yol kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Test a meter against a reference: errors, uncertainty and verdict by class.</source>
        <translation>Bir sayacı referansla test eder: hatalar, belirsizlik ve sınıfa göre karar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The chart as large as it can be.</source>
        <translation>Grafik olabildiğince büyük.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already closed.</source>
        <translation>Bağlantı zaten kapalı.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The link is already open.</source>
        <translation>Bağlantı zaten açık.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The log and the details of one interaction.</source>
        <translation>Günlük ve bir etkileşimin ayrıntıları.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The minutes in which may be written begin anew.</source>
        <translation>Yazılabilecek dakikalar baştan başlar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The only way to {device} so far.</source>
        <translation>{device} için şimdilik tek yol.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The program&apos;s own log and its crash reports.</source>
        <translation>Programın kendi günlüğü ve çökme raporları.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The same curves, axes and range of time once more.</source>
        <translation>Aynı eğriler, eksenler ve zaman aralığı bir kez daha.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>The six fixed steps that put a prepaid meter into service.</source>
        <translation>Ön ödemeli bir sayacı hizmete alan altı sabit adım.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is no chart yet.</source>
        <translation>Henüz grafik yok.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is nothing to undo.</source>
        <translation>Geri alınacak bir şey yok.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>There is only this chart; one stays.</source>
        <translation>Tek grafik bu; bir grafik hep kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay. Open the log for reading to check it.</source>
        <translation>Bu bir yeniden oynatma. Denetlemek için günlüğü okumak üzere açın.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This is a replay; nothing can be sent or changed.</source>
        <translation>Bu bir yeniden oynatmadır; hiçbir şey gönderilemez veya değiştirilemez.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>This log is open for reading only.</source>
        <translation>Bu günlük salt okunur açıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Version, licence and the folders in use.</source>
        <translation>Sürüm, lisans ve kullanılan klasörler.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Versions, settings and checks of this computer; secrets are left out.</source>
        <translation>Bu bilgisayarın sürümleri, ayarları ve denetimleri; gizli bilgiler çıkarılır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Watch a kept log again as if it were live. Nothing is sent to a meter.</source>
        <translation>Saklanmış bir günlüğü canlıymış gibi yeniden izletir. Sayaca hiçbir şey gönderilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What a DLMS meter holds, by class or by OBIS code.</source>
        <translation>Bir DLMS sayacının içeriği, sınıfa veya OBIS koduna göre.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>What differs between two logs, meters or readings.</source>
        <translation>İki günlük, sayaç veya okuma arasındaki farklar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write a note at the time under the pointer, at cursor A, or in the middle.</source>
        <translation>İşaretçinin altındaki zamana, A imlecine veya ortaya bir not yazar.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write interactions to a file for others; secrets are left out.</source>
        <translation>Etkileşimleri başkaları için bir dosyaya yazar; gizli bilgiler çıkarılır.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>Write what is filtered to a file for others, with names replaced.</source>
        <translation>Filtrelenenleri başkaları için bir dosyaya yazar, adlar değiştirilir.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a gateway; choose one.</source>
        <translation>{name} bir ağ geçidi değil; bir ağ geçidi seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a grid; choose one.</source>
        <translation>{name} bir şebeke değil; bir şebeke seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} is not a meter; choose one.</source>
        <translation>{name} bir sayaç değil; bir sayaç seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{name} only groups others; choose a meter or gateway.</source>
        <translation>{name} yalnızca başkalarını gruplar; bir sayaç veya ağ geçidi seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/actions.py"/>
        <source>{text} to {device}</source>
        <translation>{text}: {device}</translation>
    </message>
</context>
<context>
    <name>Actor</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>app</source>
        <translation>program</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>batch</source>
        <translation>toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>command line</source>
        <translation>komut satırı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>commissioning</source>
        <translation>devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>flow</source>
        <translation>akış</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>follow up</source>
        <translation>takip komutu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gatekeeper</source>
        <translation>gönderim denetimi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>import</source>
        <translation>içe aktarma</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>order</source>
        <translation>sipariş</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reconciler</source>
        <translation>mutabakat</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>replay</source>
        <translation>yeniden oynatma</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tour</source>
        <translation>tanıtım</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>sonradan inceleme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>istenmeden</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>user</source>
        <translation>kullanıcı</translation>
    </message>
</context>
<context>
    <name>AddressField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered in the form of a new device that connects to this computer; what is set up stays</source>
        <translation>Bu bilgisayara bağlanan yeni cihazın formunda önerilir; kurulmuş olanlar değişmez</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Type the name or address of this computer.</source>
        <translation>Bu bilgisayarın adını veya adresini yazın.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>every network of this computer</source>
        <translation>bu bilgisayarın tüm ağları</translation>
    </message>
</context>
<context>
    <name>Arming</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Arm for {n} min and {verb}</source>
        <translation>{n} dk izin ver ve {verb}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed</source>
        <translation>Yazma açık</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only read</source>
        <translation>Yalnızca oku</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Only reading is allowed now.</source>
        <translation>Şu anda yalnızca okumaya izin var.</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Read only</source>
        <translation>Salt okunur</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>This changes something on a meter, and writing is not armed or its time is over.</source>
        <translation>Bu bir sayaçta bir şeyi değiştirir ve yazmaya izin verilmemiş ya da süresi dolmuş.</translation>
    </message>
</context>
<context>
    <name>ArmingSwitch</name>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>&amp;Arm writing for {n} min</source>
        <translation>{n} dk yazmaya &amp;izin ver</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Armed {minutes}:{seconds}</source>
        <translation>Yazma açık {minutes}:{seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Re&amp;ad only from now on</source>
        <translation>Şu andan sonra &amp;yalnızca oku</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>S&amp;tay armed for {n} min from now</source>
        <translation>Yazma iznini şu andan {n} dk &amp;uzat</translation>
    </message>
    <message>
        <location filename="../../ui/arming.py"/>
        <source>Stay armed</source>
        <translation>Yazma açık kalsın</translation>
    </message>
</context>
<context>
    <name>Arrivals</name>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>No link is opened by this, and it can be undone.</source>
        <translation>Bununla bağlantı açılmaz ve geri alınabilir.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>One log is open at a time: {name}. The {n} others were left alone.</source>
        <translation>
            <numerusform>Aynı anda tek günlük açık olur: {name}. Diğer {n} günlüğe dokunulmadı.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices</source>
        <translation>
            <numerusform>{n} cihazı oku</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>Read {n} devices from {name} into this workspace?</source>
        <translation>
            <numerusform>{name} dosyasından {n} cihaz bu çalışma alanına okunsun mu?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>Site file {name}</source>
        <translation>Saha dosyası {name}</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} cannot be read ({why}). Check that it is still there and may be read.</source>
        <translation>{name} okunamıyor ({why}). Hâlâ yerinde olduğunu ve okunabildiğini denetleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} has nothing new: all {n} of its devices stand in this workspace as they are there.</source>
        <translation>{name} yeni bir şey içermiyor: {n} cihazının tümü bu çalışma alanında aynen var.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is a site file. Open or make a workspace first, then drop it again.</source>
        <translation>{name} bir saha dosyası. Önce bir çalışma alanı açın veya oluşturun, sonra dosyayı yeniden bırakın.</translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{name} is nothing that can be opened here. A workspace or log (*.mwk, *.jsonl, *.csv), a site file (*.toml, *.csv) or a batch (*.csv, *.xlsx) can.</source>
        <translation>{name} burada açılabilecek bir şey değil. Bir çalışma alanı veya günlük (*.mwk, *.jsonl, *.csv), bir saha dosyası (*.toml, *.csv) veya bir toplu iş (*.csv, *.xlsx) açılabilir.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} read</source>
        <translation>
            <numerusform>{name}: {n} cihaz okundu</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} devices of {name} were read.</source>
        <translation>
            <numerusform>{name} dosyasından {n} cihaz okundu.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/arrivals.py"/>
        <source>{n} of {all} devices of {name} were read. {why}</source>
        <translation>{name}: {all} cihazdan {n} cihaz okundu. {why}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/arrivals.py"/>
        <source>{n} stand in this workspace already and get the settings of the file: {names}.</source>
        <translation>
            <numerusform>{n} tanesi zaten bu çalışma alanında ve dosyanın ayarlarını alır: {names}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Bar</name>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 day</source>
        <translation>1 gün</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 h</source>
        <translation>1 sa</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 min</source>
        <translation>1 dk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 s</source>
        <translation>1 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>1 week</source>
        <translation>1 hafta</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>10 s</source>
        <translation>10 s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>15 min</source>
        <translation>15 dk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>5 min</source>
        <translation>5 dk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>6 h</source>
        <translation>6 sa</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Clock</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor A</source>
        <translation>A imleci</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Cursor B</source>
        <translation>B imleci</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Export</source>
        <translation>Dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Fit</source>
        <translation>Sığdır</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Follow</source>
        <translation>İzle</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Hold the picture; samples keep arriving (Space)</source>
        <translation>Görüntüyü durdurur; örnekler gelmeyi sürdürür (Boşluk)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>No cursors</source>
        <translation>İmleç yok</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Note</source>
        <translation>Not</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Pause</source>
        <translation>Duraklat</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Paused, {0} behind. Follow (Space)</source>
        <translation>Duraklatıldı, {0} geride. İzle (Boşluk)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place A in the middle, or under the pointer with the key A; drag to move</source>
        <translation>A&apos;yı ortaya, A tuşuyla işaretçinin altına koyar; taşımak için sürükleyin</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Place B in the middle, or under the pointer with the key B; drag to move</source>
        <translation>B&apos;yi ortaya, B tuşuyla işaretçinin altına koyar; taşımak için sürükleyin</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Show everything there is (F)</source>
        <translation>Var olan her şeyi gösterir (F)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of the meter</source>
        <translation>Sayacın zamanı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time of this computer</source>
        <translation>Bu bilgisayarın saati</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Time since the first sample</source>
        <translation>İlk örnekten beri geçen süre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Width of the time axis</source>
        <translation>Zaman ekseninin genişliği</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Write a note at cursor A or in the middle, or under the pointer with the key N</source>
        <translation>A imlecine veya ortaya, N tuşuyla işaretçinin altına bir not yazar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/bar.py"/>
        <source>Writing…</source>
        <translation>Yazılıyor…</translation>
    </message>
</context>
<context>
    <name>Batch</name>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Interaction</source>
        <translation>Etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Line</source>
        <translation>Satır</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Meter</source>
        <translation>Sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Took</source>
        <translation>Süre</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>What is wrong</source>
        <translation>Sorun</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>Why</source>
        <translation>Neden</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>all done</source>
        <translation>tümü tamam</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>can be sent</source>
        <translation>gönderilebilir</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>left out</source>
        <translation>dışarıda bırakıldı</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>not all done</source>
        <translation>tümü tamam değil</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>step {n} of {total}</source>
        <translation>adım {n} / {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>stopped</source>
        <translation>durduruldu</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>under way</source>
        <translation>sürüyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/batch.py"/>
        <source>{done} of {total} done</source>
        <translation>{total} komuttan {done} tamam</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} failed</source>
        <translation>
            <numerusform>{n} başarısız</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} replaced</source>
        <translation>
            <numerusform>{n} yenisiyle değiştirildi</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} under way</source>
        <translation>
            <numerusform>{n} sürüyor</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/batch.py"/>
        <source>{n} waiting</source>
        <translation>
            <numerusform>{n} bekliyor</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BatchPanel</name>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>&amp;Leave out lines with faults</source>
        <translation>&amp;Hatalı satırları dışarıda bırak</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>, {n} with a fault</source>
        <translation>, {n} hatalı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>A new batch of those that failed. What may have taken effect unseen is left out.</source>
        <translation>Başarısız olanlardan yeni bir toplu iş. Görülmeden etki etmiş olabilenler dışarıda bırakılır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch</source>
        <translation>Toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batch {id}: {title}</source>
        <translation>Toplu iş {id}: {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Batches</source>
        <translation>Toplu işler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Begin with the meters: choose them in the tree, or import a list. Nothing is sent yet.</source>
        <translation>Sayaçlarla başlayın: ağaçtan seçin veya liste içe aktarın. Henüz hiçbir şey gönderilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>CSV or XLSX: a column device (id, serial number or name), and the parameters by name or title.</source>
        <translation>CSV veya XLSX: device sütunu (kimlik, seri numarası veya ad) ve parametreler, adına veya başlığına göre.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose a command or a flow</source>
        <translation>Bir komut veya akış seçin</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Choose several meters in the tree, or all that match a filter there.</source>
        <translation>Ağaçta birkaç sayaç seçin veya oradaki bir filtreyle eşleşenlerin tümünü.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Column {name}: {why}</source>
        <translation>Sütun {name}: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Command or flow</source>
        <translation>Komut veya akış</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Flow: {title}</source>
        <translation>Akış: {title}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Give up the rest</source>
        <translation>Kalanlardan vazgeç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on</source>
        <translation>Sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go on with batch {id}</source>
        <translation>Toplu iş {id} sürdürülsün</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Go to the first fault</source>
        <translation>İlk hataya git</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list</source>
        <translation>Liste içe aktar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Import a list…</source>
        <translation>Liste içe aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It changes something: {list}.</source>
        <translation>Bir şeyi değiştirir: {list}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>It is given once more to: {devices}.</source>
        <translation>Bir kez daha verilenler: {devices}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Lists of devices (*.csv *.xlsx)</source>
        <translation>Cihaz listeleri (*.csv *.xlsx)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members of the batch</source>
        <translation>Toplu işin üyeleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Members that have ended</source>
        <translation>Biten üyeler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>New batch</source>
        <translation>Yeni toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it can be tried again. {why}</source>
        <translation>Hiçbiri yeniden denenemez. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Nothing of it has been sent.</source>
        <translation>Bundan hiçbir şey gönderilmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Save report…</source>
        <translation>Raporu kaydet…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Send</source>
        <translation>Gönder</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Send to {n} meters</source>
        <translation>
            <numerusform>{n} sayaca gönder</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Start the batch</source>
        <translation>Toplu işi başlat</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Start {flow} on {n} meters</source>
        <translation>
            <numerusform>{n} sayaçta {flow} başlat</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Stop</source>
        <translation>Durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Take the chosen meters</source>
        <translation>Seçili sayaçları al</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>Take {n} chosen meters</source>
        <translation>
            <numerusform>Seçili {n} sayacı al</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>The commands of the list</source>
        <translation>Listenin komutları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again</source>
        <translation>Başarısızları yeniden dene</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try failed again…</source>
        <translation>Başarısızları yeniden dene…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Try {n} again</source>
        <translation>{n} tanesini yeniden dene</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Undo import</source>
        <translation>İçe aktarmayı geri al</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>Wh&amp;at</source>
        <translation>&amp;Ne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What has not left is called back. What has left comes to its end by itself.</source>
        <translation>Çıkmamış olanlar geri çağrılır. Çıkanlar kendiliğinden sona erer.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back counts as failed.</source>
        <translation>Geri çağrılanlar başarısız sayılır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What was called back is sent now, each once.</source>
        <translation>Geri çağrılanlar şimdi gönderilir, her biri bir kez.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>What would be sent to each meter</source>
        <translation>Her sayaca gönderilecekler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>began {time}</source>
        <translation>başlangıç {time}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>line {n}</source>
        <translation>satır {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>tries again what failed in batch {id}</source>
        <translation>{id} numaralı toplu işte başarısız olanları yeniden dener</translation>
    </message>
    <message>
        <location filename="../../ui/panels/batch.py"/>
        <source>{names} and {n} more</source>
        <translation>{names} ve {n} tane daha</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{name}: {n} meters</source>
        <translation>
            <numerusform>{name}: {n} sayaç</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{n} chosen meters</source>
        <translation>
            <numerusform>{n} seçili sayaç</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/batch.py"/>
        <source>{what} on {n} meters</source>
        <translation>
            <numerusform>{n} sayaçta {what}</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>BytesTab</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes from {link}</source>
        <translation>
            <numerusform>{link} hattından %n bayt</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n bytes to {link}</source>
        <translation>
            <numerusform>{link} hattına %n bayt</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>&amp;Follow</source>
        <translation>&amp;İzle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>All bytes of this link before and behind these, in their order.</source>
        <translation>Bu bağlantının bunlardan önceki ve sonraki tüm baytları, sırasıyla.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>As text</source>
        <translation>Metin olarak</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Bayt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes as text</source>
        <translation>Metin olarak baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Decoded answer</source>
        <translation>Çözülmüş yanıt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Frames</source>
        <translation>Çerçeveler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Link</source>
        <translation>Bağlantı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No bytes yet. They appear here as soon as the first frame leaves or arrives.</source>
        <translation>Henüz bayt yok. İlk çerçeve çıktığında veya geldiğinde burada görünür.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Octets</source>
        <translation>Oktetler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Part</source>
        <translation>Bölüm</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Parts of the frame</source>
        <translation>Çerçevenin bölümleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Deneme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Way</source>
        <translation>Yön</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>body</source>
        <translation>gövde</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>first line</source>
        <translation>ilk satır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>headers</source>
        <translation>başlıklar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{text}, cut off: the log keeps the first part</source>
        <translation>{text}, kesildi: günlük ilk bölümü saklar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>← in</source>
        <translation>← gelen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>→ out</source>
        <translation>→ giden</translation>
    </message>
</context>
<context>
    <name>Caretaker</name>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Another Meterwright with this profile (process {number}) does not answer. End it, or start this one with a profile of its own: --profile FOLDER.</source>
        <translation>Bu profili kullanan başka bir Meterwright (işlem {number}) yanıt vermiyor. Onu sonlandırın veya bunu kendi profiliyle başlatın: --profile FOLDER.</translation>
    </message>
    <message>
        <location filename="../../ui/caretaker.py"/>
        <source>Meterwright was killed by a fault last time. What is known of it is in {file}.</source>
        <translation>Meterwright son kez bir arızayla sonlandı. Bilinenler {file} dosyasında.</translation>
    </message>
</context>
<context>
    <name>ChartBook</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>All charts show the same range of time and move together</source>
        <translation>Tüm grafikler aynı zaman aralığını gösterir ve birlikte kayar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Another chart beside these (Ctrl+T)</source>
        <translation>Bunların yanına bir grafik daha (Ctrl+T)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart</source>
        <translation>Grafik</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Chart {name}</source>
        <translation>Grafik {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Duplicate</source>
        <translation>Çoğalt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>End the recording {name} (Ctrl+R)</source>
        <translation>{name} kaydını bitir (Ctrl+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Give the time from now on a name (Ctrl+R)</source>
        <translation>Şu andan sonrasına ad ver (Ctrl+R)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Lab</source>
        <translation>Laboratuvar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>New chart</source>
        <translation>Yeni grafik</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Notes, thresholds, derived quantities and references</source>
        <translation>Notlar, eşikler, türetilmiş büyüklükler ve referanslar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Record</source>
        <translation>Kayıt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Rename</source>
        <translation>Yeniden adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Same time</source>
        <translation>Aynı zaman</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Stop {elapsed}</source>
        <translation>Durdur {elapsed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>The chart was written to {path}.</source>
        <translation>Grafik {path} dosyasına yazıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>There are {n} charts, which is the most: close one that is no longer needed.</source>
        <translation>{n} grafik var, üst sınır bu: artık gerekmeyen birini kapatın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>This is the only chart; one stays. Its curves can be taken off.</source>
        <translation>Tek grafik bu; bir grafik hep kalır. Eğrileri çıkarılabilir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>the reference of {source} added</source>
        <translation>{source} referansı eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} added</source>
        <translation>{name} eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} closed</source>
        <translation>{name} kapatıldı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{name} copy</source>
        <translation>{name} kopyası</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>{old} renamed to {new}</source>
        <translation>{old} artık {new} adında</translation>
    </message>
</context>
<context>
    <name>ChartTabs</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Charts</source>
        <translation>Grafikler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart</source>
        <translation>Bu grafiği kapat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Close this chart (Ctrl+W)</source>
        <translation>Bu grafiği kapat (Ctrl+W)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves</source>
        <translation>Eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Curves, statistics and samples</source>
        <translation>Eğriler, istatistikler ve örnekler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Statistics</source>
        <translation>İstatistik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/tabs.py"/>
        <source>Table</source>
        <translation>Tablo</translation>
    </message>
</context>
<context>
    <name>Check</name>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>answer</source>
        <translation>yanıt</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>bytes</source>
        <translation>baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>decoded</source>
        <translation>çözülen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>end</source>
        <translation>son</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}</source>
        <translation>çerçeve {frame}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>frame {frame}, byte {offset}</source>
        <translation>çerçeve {frame}, bayt {offset}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>not recorded</source>
        <translation>kaydedilmedi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>reason</source>
        <translation>neden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>status</source>
        <translation>durum</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>verdict</source>
        <translation>karar</translation>
    </message>
</context>
<context>
    <name>CheckDialog</name>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>%n differences.</source>
        <translation>
            <numerusform>%n fark.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>&amp;Open the command</source>
        <translation>Komutu &amp;aç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Check {name}</source>
        <translation>Denetle: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking…</source>
        <translation>Denetleniyor…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>Checking… %n differences so far.</source>
        <translation>
            <numerusform>Denetleniyor… şimdiye kadar %n fark.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Differences</source>
        <translation>Farklar</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/check.py"/>
        <source>It was stopped. %n differences until then.</source>
        <translation>
            <numerusform>Durduruldu. O ana kadar %n fark.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No difference: everything is as it was recorded.</source>
        <translation>Fark yok: her şey kaydedildiği gibi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Now</source>
        <translation>Şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Recorded</source>
        <translation>Kaydedilen</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Result of the check</source>
        <translation>Denetimin sonucu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stop the check</source>
        <translation>Denetimi durdur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Stopping…</source>
        <translation>Durduruluyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The difference in words</source>
        <translation>Farkın sözlü anlatımı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is being checked</source>
        <translation>Günlük denetleniyor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>The log is replayed without any meter: bytes, verdicts, ends of commands and decoded answers are compared with what was recorded. Nothing in it is changed.</source>
        <translation>Günlük hiçbir sayaç olmadan yeniden oynatılır: baytlar, kararlar, komutların sonları ve çözülen yanıtlar kaydedilenle karşılaştırılır. İçinde hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>There are more than {n} differences; the others are not shown.</source>
        <translation>{n} değerinden fazla fark var; kalanlar gösterilmiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/check.py"/>
        <source>Where</source>
        <translation>Yer</translation>
    </message>
</context>
<context>
    <name>Clock</name>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It gains {span} a day.</source>
        <translation>Günde {span} ileri gidiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It keeps the same distance.</source>
        <translation>Farkı aynı kalıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>It loses {span} a day.</source>
        <translation>Günde {span} geri kalıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The answer does not tell how far the clock is off. Read the clock again.</source>
        <translation>Yanıt, saatin ne kadar saptığını bildirmiyor. Saati yeniden okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is far off: tariffs and load profile fall into wrong periods. Set it.</source>
        <translation>Sayacın saati çok sapmış: tarifeler ve yük profili yanlış dönemlere düşüyor. Saati ayarlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is off. Set it before its load profile is used for billing.</source>
        <translation>Sayacın saati sapmış. Yük profili faturalamada kullanılmadan önce saati ayarlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>The clock of the meter is right.</source>
        <translation>Sayacın saati doğru.</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>drift not told</source>
        <translation>kayma bildirilmedi</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>far off</source>
        <translation>çok sapmış</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>no drift</source>
        <translation>kayma yok</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>off</source>
        <translation>sapmış</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>right</source>
        <translation>doğru</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} ahead</source>
        <translation>{span} ileri</translation>
    </message>
    <message>
        <location filename="../../ui/models/clock.py"/>
        <source>{span} behind</source>
        <translation>{span} geri</translation>
    </message>
</context>
<context>
    <name>ClockView</name>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Clock of the meter</source>
        <translation>Sayacın saati</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Drift</source>
        <translation>Kayma</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Earlier readings of the clock</source>
        <translation>Saatin önceki okumaları</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter</source>
        <translation>Sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter after</source>
        <translation>Sonra sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Meter before</source>
        <translation>Önce sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Set clock…</source>
        <translation>Saati ayarla…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>This computer then</source>
        <translation>O an bu bilgisayar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>Time of the meter</source>
        <translation>Sayacın zamanı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>read</source>
        <translation>okundu</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/clock_view.py"/>
        <source>set</source>
        <translation>ayarlandı</translation>
    </message>
</context>
<context>
    <name>ColourButton</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply earlier</source>
        <translation>Daha önce uygula</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Apply later</source>
        <translation>Daha sonra uygula</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour and mark the rows that match a filter</source>
        <translation>Bir filtreye uyan satırları renklendir ve işaretle</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colour what the filter shows</source>
        <translation>Filtrenin gösterdiklerini renklendir</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Colours</source>
        <translation>Renkler</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>No rows are coloured yet</source>
        <translation>Henüz renklendirilen satır yok</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Remove</source>
        <translation>Kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Show what it colours</source>
        <translation>Neyi renklendirdiğini göster</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>The colours could not be saved. {why}</source>
        <translation>Renkler kaydedilemedi. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Undo: {what}</source>
        <translation>Geri al: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>colour {name}</source>
        <translation>{name} rengi</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>move {name}</source>
        <translation>{name} taşıma</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>remove {name}</source>
        <translation>{name} kaldırma</translation>
    </message>
</context>
<context>
    <name>Command</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Connect it first.</source>
        <translation>Önce bağlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing can be sent from here: this is a recording, or a log opened for reading.</source>
        <translation>Buradan hiçbir şey gönderilemez: bu bir kayıt veya okumak için açılmış bir günlük.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} has no such command.</source>
        <translation>{name} cihazının böyle bir komutu yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{name} is not connected. {why}</source>
        <translation>{name} bağlı değil. {why}</translation>
    </message>
</context>
<context>
    <name>CommandPalette</name>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>An action, a device, or a command and a device</source>
        <translation>Bir işlem, bir cihaz veya bir komut ve bir cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Command palette</source>
        <translation>Komut paleti</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Go to {name}</source>
        <translation>{name} cihazına git</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Hiçbir şey eşleşmiyor. Daha az harf deneyin.</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>Results</source>
        <translation>Sonuçlar</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>What do you want to do?</source>
        <translation>Ne yapmak istiyorsunuz?</translation>
    </message>
    <message>
        <location filename="../../ui/palette.py"/>
        <source>{command} on {device}</source>
        <translation>{device}: {command}</translation>
    </message>
</context>
<context>
    <name>CommandPanel</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Commands</source>
        <translation>Komutlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Control</source>
        <translation>Kumanda</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Credit and tokens</source>
        <translation>Kredi ve jetonlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked first.</source>
        <translation>Tehlikeli. Önce size sorulur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Dangerous. You will be asked for the serial number.</source>
        <translation>Tehlikeli. Size seri numarası sorulur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Edit as rows…</source>
        <translation>Satırlar olarak düzenle…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see what it can be told.</source>
        <translation>Sayaç seçilmedi.
Ona hangi komutların verilebileceğini görmek için soldaki ağaçtan bir sayaç seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Not on this meter</source>
        <translation>Bu sayaçta yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing to fill in.</source>
        <translation>Doldurulacak bir şey yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Hiçbir şey gönderilmedi. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Nothing was sent: correct what is marked above.</source>
        <translation>Hiçbir şey gönderilmedi: yukarıda işaretlenenleri düzeltin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Only reads.</source>
        <translation>Yalnızca okur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Open issue: {what}</source>
        <translation>Açık sorun: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Outcome of the last command</source>
        <translation>Son komutun sonucu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Read</source>
        <translation>Okuma</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}, waiting at the gatekeeper.</source>
        <translation>{link} olarak kaydedildi, gönderim denetiminde bekliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Saved as {link}: {status}.</source>
        <translation>{link} olarak kaydedildi: {status}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Search commands</source>
        <translation>Komut ara</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter accepted the token.</source>
        <translation>Sayaç jetonu kabul etti.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>The meter refused the token.</source>
        <translation>Sayaç jetonu reddetti.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Write</source>
        <translation>Yazma</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Writes to the meter. You will be asked first.</source>
        <translation>Sayaca yazar. Önce size sorulur.</translation>
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
        <translation>{name} kendisi komut almaz.
Altındaki bir sayacı veya ağ geçidini seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{n} open issues: {what}</source>
        <translation>{n} açık sorun: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, busy with {what}</source>
        <translation>{state}, meşgul: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{state}, last heard {time}</source>
        <translation>{state}, son haber {time}</translation>
    </message>
</context>
<context>
    <name>CommandQuestion</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>(not shown)</source>
        <translation>(gösterilmiyor)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Meter</source>
        <translation>Sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Serial number of the meter</source>
        <translation>Sayacın seri numarası</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Type the {what} {serial} to go on.</source>
        <translation>Sürdürmek için şunu yazın: {what} {serial}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>id</source>
        <translation>kimlik</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>left to the program</source>
        <translation>programa bırakıldı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>serial number</source>
        <translation>seri numarası</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{name}, serial number {serial}</source>
        <translation>{name}, seri numarası {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} now</source>
        <translation>{what} şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>{what} then</source>
        <translation>{what} sonra</translation>
    </message>
</context>
<context>
    <name>Commissioning</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>(unit unknown)</source>
        <translation>(birim bilinmiyor)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>All steps are done.</source>
        <translation>Tüm adımlar tamam.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}, with something to look at. {warnings}</source>
        <translation>{span} içinde devreye alındı, bakılması gerekenler var. {warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioned in {span}.</source>
        <translation>{span} içinde devreye alındı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Ended at step {number}, {step}, after {span}. {why}</source>
        <translation>Adım {number}, {step}, {span} sonra sona erdi. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed after {span}. {why}</source>
        <translation>{span} sonra başarısız oldu. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Failed at step {number}, {step}, after {span}. {why}</source>
        <translation>Adım {number}, {step}, {span} sonra başarısız oldu. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Registration</source>
        <translation>Kaydettirme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number} waits: {why}</source>
        <translation>Adım {number} bekliyor: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is next.</source>
        <translation>Sırada adım {number}, {step}, var.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is on its way to the meter.</source>
        <translation>Adım {number}, {step}, sayaca giden yolda.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}, {step}, is queued.</source>
        <translation>Adım {number}, {step}, kuyrukta.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step {number}: {warning}</source>
        <translation>Adım {number}: {warning}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The meter is being registered. {why}</source>
        <translation>Sayaç kaydettiriliyor. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The registration failed after {span}. {why}</source>
        <translation>Kaydettirme {span} sonra başarısız oldu. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting for the vendor to register the meter. Say below what came of it.</source>
        <translation>Üreticinin sayacı kaydetmesi bekleniyor. Sonucu aşağıda belirtin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Waiting to hear from the meter: it reports every hour. {why}</source>
        <translation>Sayaçtan haber bekleniyor: her saat bildirir. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>not run</source>
        <translation>yürütülmedi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token accepted</source>
        <translation>jeton kabul edildi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>token refused</source>
        <translation>jeton reddedildi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>waits for its turn</source>
        <translation>sırasını bekliyor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{limit} = no limit</source>
        <translation>{limit} = sınır yok</translation>
    </message>
</context>
<context>
    <name>CommissioningPanel</name>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>A new run from the first step.</source>
        <translation>İlk adımdan yeni bir yürütme.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device}</source>
        <translation>Devreye al: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commission {device} again</source>
        <translation>Yeniden devreye al: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning</source>
        <translation>Devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Commissioning of {name}</source>
        <translation>{name}: devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Everything that waits for this meter is given up, and it no longer belongs to its connection.</source>
        <translation>Bu sayaç için bekleyen her şeyden vazgeçilir ve sayaç artık bağlantısına ait olmaz.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Has the vendor registered the meter?</source>
        <translation>Üretici sayacı kaydetti mi?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Interaction</source>
        <translation>Etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark as failed</source>
        <translation>Başarısız say</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Mark the commissioning of {device} as failed</source>
        <translation>Devreye almayı başarısız say: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Never commissioned from here. Commissioning clears tamper and credit, sets the power limit, reads voltage and power, and adds the initial credit of the grid.</source>
        <translation>Buradan hiç devreye alınmadı. Devreye alma müdahaleyi ve krediyi sıfırlar, güç sınırını ayarlar, gerilimi ve gücü okur ve şebekenin ilk kredisini yükler.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see or start its commissioning.</source>
        <translation>Sayaç seçilmedi.
Devreye alınmasını görmek veya başlatmak için soldaki ağaçtan bir sayaç seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No, it was refused</source>
        <translation>Hayır, reddedildi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Note</source>
        <translation>Not</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Once it is under way: possible after 2 hours without progress.</source>
        <translation>Başladıktan sonra: 2 saat ilerleme olmazsa yapılabilir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and commission {device}</source>
        <translation>Kaydettir ve devreye al: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Register and start</source>
        <translation>Kaydettir ve başlat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Show interaction {id}</source>
        <translation>Etkileşim {id}: göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Start commissioning</source>
        <translation>Devreye almayı başlat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Step</source>
        <translation>Adım</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps of the commissioning</source>
        <translation>Devreye alma adımları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Steps that still wait are given up. A step that is on its way may still reach the meter.</source>
        <translation>Hâlâ bekleyen adımlardan vazgeçilir. Yoldaki bir adım yine de sayaca ulaşabilir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>The credit on the meter is cleared: what the customer has bought and not used is lost. Then the tamper state is cleared and the power limit is set.</source>
        <translation>Sayaçtaki kredi sıfırlanır: müşterinin satın alıp kullanmadığı kredi kaybolur. Sonra müdahale durumu sıfırlanır ve güç sınırı ayarlanır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Try again</source>
        <translation>Yeniden dene</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall</source>
        <translation>Devreden çıkar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall {device}</source>
        <translation>Devreden çıkar: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Uninstall…</source>
        <translation>Devreden çıkar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>Yes, it is registered</source>
        <translation>Evet, kaydedildi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>began {time}, by {who}</source>
        <translation>başlangıç {time}, {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not a meter.
Choose a meter below it to see or start its commissioning.</source>
        <translation>{name} bir sayaç değil.
Devreye almayı görmek veya başlatmak için altındaki bir sayacı seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/commissioning.py"/>
        <source>{name} is not commissioned from here.
Commissioning sends tokens that clear tamper and credit, and this meter takes none.</source>
        <translation>{name} buradan devreye alınmaz.
Devreye alma, müdahaleyi ve krediyi sıfırlayan jetonlar gönderir; bu sayaç jeton almaz.</translation>
    </message>
</context>
<context>
    <name>Compare</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>attempts</source>
        <translation>denemeler</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>duration</source>
        <translation>süre</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>not there</source>
        <translation>orada yok</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>nothing</source>
        <translation>hiçbir şey</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>only on one side</source>
        <translation>yalnızca bir tarafta</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>parameter</source>
        <translation>parametre</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>reason</source>
        <translation>neden</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>result</source>
        <translation>sonuç</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>status</source>
        <translation>durum</translation>
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
        <translation>&amp;Süre farkı eşiği</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A duration differs when it is longer by this much, and twice as long.</source>
        <translation>Bir süre, bu kadar ve iki kat daha uzunsa farklı sayılır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>A workspace or an export; it is only read.</source>
        <translation>Bir çalışma alanı veya dışa aktarım; yalnızca okunur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>CSV (*.csv)</source>
        <translation>CSV (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose a device on both sides.</source>
        <translation>İki tarafta da bir cihaz seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file: a log does not differ from itself.</source>
        <translation>Diğer dosyayı seçin: bu günlük aynısıdır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose the other file…</source>
        <translation>Diğer dosyayı seç…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different devices, or another file.</source>
        <translation>İki farklı cihaz veya başka bir dosya seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Choose two different interactions, or another file.</source>
        <translation>İki farklı etkileşim veya başka bir dosya seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Co&amp;mpare</source>
        <translation>&amp;Karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare</source>
        <translation>Karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Compare with</source>
        <translation>Karşılaştırılacak</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing</source>
        <translation>Karşılaştırılıyor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Comparing… nothing differs so far.</source>
        <translation>Karşılaştırılıyor… şimdiye kadar fark yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Copy row</source>
        <translation>Satırı kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device here</source>
        <translation>Buradaki cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Device there</source>
        <translation>Oradaki cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Differences</source>
        <translation>Farklar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export the differences</source>
        <translation>Farkları dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Export…</source>
        <translation>Dışa aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Give the number of an interaction on both sides.</source>
        <translation>İki tarafta da bir etkileşim numarası verin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>HTML (*.html)</source>
        <translation>HTML (*.html)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Here</source>
        <translation>Burada</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>How much longer a duration must be to differ</source>
        <translation>Fark sayılması için bir sürenin ne kadar uzun olması gerektiği</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction here</source>
        <translation>Buradaki etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Interaction there</source>
        <translation>Oradaki etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>JSON (*.json)</source>
        <translation>JSON (*.json)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Kind of difference</source>
        <translation>Farkın türü</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Logs ({patterns})</source>
        <translation>Günlükler ({patterns})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Looking through {name}…</source>
        <translation>{name} inceleniyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>No row is chosen in the log. Choose one there first.</source>
        <translation>Günlükte seçili satır yok. Önce orada bir satır seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>None of the differences matches this filter. Empty the filter to see all.</source>
        <translation>Bu filtreyle eşleşen fark yok. Tümünü görmek için filtreyi boşaltın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing differs: every command is on both sides with the same end and the same values.</source>
        <translation>Fark yok: her komut iki tarafta da aynı sonuç ve aynı değerlerle var.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Nothing was compared: {why}</source>
        <translation>Karşılaştırılmadı: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this command: {command}</source>
        <translation>Yalnızca bu komut: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Only this kind: {what}</source>
        <translation>Yalnızca bu tür: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Show interaction {id}</source>
        <translation>Etkileşim {id}: göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stop comparing</source>
        <translation>Karşılaştırmayı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Stopped. What was found until then is shown.</source>
        <translation>Durduruldu. O ana kadar bulunanlar gösteriliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take the row chosen in the log</source>
        <translation>Günlükte seçili satırı al</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Take this log</source>
        <translation>Bu günlüğü al</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>The other file is being opened.</source>
        <translation>Diğer dosya açılıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There</source>
        <translation>Orada</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There are more: the first {n} are shown.</source>
        <translation>Daha fazlası var: ilk {n} tanesi gösteriliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>There is no interaction {n} there.</source>
        <translation>Orada {n} numaralı etkileşim yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>This one is only in the other file. Open that one to see its steps.</source>
        <translation>Bu yalnızca diğer dosyada var. Adımlarını görmek için o dosyayı açın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two meters</source>
        <translation>İki sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two readings</source>
        <translation>İki okuma</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Two sessions</source>
        <translation>İki oturum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What differs between two logs, two meters or two readings is listed here, aligned by command.
Choose what to compare above.</source>
        <translation>İki günlük, iki sayaç veya iki okuma arasındaki farklar burada komutlara göre hizalanarak listelenir.
Yukarıda neyin karşılaştırılacağını seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>What is compared</source>
        <translation>Karşılaştırılanlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Words that a row must hold</source>
        <translation>Satırda bulunması gereken sözcükler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>Write the rows that are shown to a file: CSV, JSON or HTML.</source>
        <translation>Gösterilen satırları bir dosyaya yazar: CSV, JSON veya HTML.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>every kind</source>
        <translation>her tür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log too</source>
        <translation>bu günlük de</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>this log: {name}</source>
        <translation>bu günlük: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{command} on {device}, {time}, {status}</source>
        <translation>{device}: {command}, {time}, {status}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences</source>
        <translation>
            <numerusform>{n} fark</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} differences were written to {path}.</source>
        <translation>
            <numerusform>{n} fark {path} dosyasına yazıldı.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/compare.py"/>
        <source>{n} of {total} differences</source>
        <translation>{total} farktan {n} tanesi</translation>
    </message>
</context>
<context>
    <name>ConnectionDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;How is it reached?</source>
        <translation>&amp;Nasıl ulaşılıyor?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>&amp;Test the connection</source>
        <translation>&amp;Bağlantıyı test et</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connect a meter</source>
        <translation>Sayaç bağla</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection</source>
        <translation>Bağlantı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}</source>
        <translation>{name} bağlantısı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Connection of {name}: {way}</source>
        <translation>{name} bağlantısı: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Gateway</source>
        <translation>Ağ geçidi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Grid</source>
        <translation>Şebeke</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>How the device is reached</source>
        <translation>Cihaza nasıl ulaşıldığı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Id</source>
        <translation>Kimlik</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Keep passwords and keys for this session only</source>
        <translation>Parolaları ve anahtarları yalnızca bu oturum için sakla</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Kind</source>
        <translation>Tür</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Leave without saving</source>
        <translation>Kaydetmeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Meter</source>
        <translation>Sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Of this meter alone</source>
        <translation>Yalnızca bu sayacın</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>One is kept already; type here to replace it.</source>
        <translation>Bir tane zaten saklı; değiştirmek için buraya yazın.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Only groups others; it has no connection.</source>
        <translation>Yalnızca başkalarını gruplar; bağlantısı yoktur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Otherwise they go to the keyring of this computer. They never stand in the workspace or the log.</source>
        <translation>Yoksa bu bilgisayarın anahtarlığına konur. Çalışma alanında veya günlükte asla yer almaz.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save the device</source>
        <translation>Cihazı kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Save {name}</source>
        <translation>{name} cihazını kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Serial number</source>
        <translation>Seri numarası</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Short and without blanks; used on the command line.</source>
        <translation>Kısa ve boşluksuz; komut satırında kullanılır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site</source>
        <translation>Saha</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Site or grid</source>
        <translation>Saha veya şebeke</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Stands in</source>
        <translation>Bulunduğu yer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Hâlâ gerekli: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The log refers to this id, so it stays.</source>
        <translation>Günlük bu kimliğe başvurduğu için kimlik değişmez.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{id} is already the id of {name}.</source>
        <translation>{id} kimliği zaten {name} için kullanılıyor.</translation>
    </message>
</context>
<context>
    <name>ConnectionTest</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The connection works.</source>
        <translation>Bağlantı çalışıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>The test was stopped.</source>
        <translation>Test durduruldu.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>There was no result in {n} s. Check the address and the cable, then test again.</source>
        <translation>{n} s içinde sonuç gelmedi. Adresi ve kabloyu denetleyip yeniden test edin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Trying the connection...</source>
        <translation>Bağlantı deneniyor...</translation>
    </message>
</context>
<context>
    <name>ConnectionWizard</name>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>&amp;Back</source>
        <translation>&amp;Geri</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Connect a meter</source>
        <translation>Sayaç bağla</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Enter it by &amp;hand...</source>
        <translation>&amp;Elle gir...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Leave without saving</source>
        <translation>Kaydetmeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Save</source>
        <translation>Kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Search</source>
        <translation>Ara</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Test</source>
        <translation>Test et</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>The form with every setting; it begins with what is known by now.</source>
        <translation>Tüm ayarların formu; şimdiye kadar bilinenlerle başlar.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/window.py"/>
        <source>Where</source>
        <translation>Yer</translation>
    </message>
</context>
<context>
    <name>CrashDialog</name>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Copy the report</source>
        <translation>Raporu &amp;kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Hide the report</source>
        <translation>&amp;Raporu gizle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Open its folder</source>
        <translation>Klasörünü &amp;aç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>&amp;Show the report</source>
        <translation>&amp;Raporu göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program has ended Meterwright.</source>
        <translation>Programdaki bir arıza Meterwright&apos;ı sonlandırdı.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>A fault in the program stopped what it was just doing.</source>
        <translation>Programdaki bir arıza o anki işi durdurdu.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Close this message</source>
        <translation>Bu iletiyi kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Copied</source>
        <translation>Kopyalandı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Go on working</source>
        <translation>Çalışmayı sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Report</source>
        <translation>Rapor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>Something went wrong in Meterwright</source>
        <translation>Meterwright&apos;ta bir sorun oluştu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The last thing you did may not have happened; the log says what was sent. Everything else goes on. Send the report to whoever looks after Meterwright.</source>
        <translation>Son yaptığınız işlem gerçekleşmemiş olabilir; gönderilenler günlükte yazar. Geri kalan her şey sürüyor. Raporu Meterwright&apos;la ilgilenen kişiye gönderin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The report is in {file}.</source>
        <translation>Rapor {file} dosyasında.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>The workspace is whole: what was sent stands in its log, and what was under way is looked after at the next start. Send the report to whoever looks after Meterwright.</source>
        <translation>Çalışma alanı sağlam: gönderilenler günlüğündedir, süren işler sonraki başlatmada ele alınır. Raporu Meterwright&apos;la ilgilenen kişiye gönderin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Faults since this message came: {n}; the newest is shown.</source>
        <translation>{text} Bu ileti geldikten sonraki arıza sayısı: {n}; en yenisi gösteriliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/crash.py"/>
        <source>{text} Passwords, keys and tokens are left out of it.</source>
        <translation>{text} Parolalar, anahtarlar ve belirteçler rapordan çıkarıldı.</translation>
    </message>
</context>
<context>
    <name>CurvePicker</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>– choose –</source>
        <translation>– seçin –</translation>
    </message>
</context>
<context>
    <name>DerivedDialog</name>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Expression</source>
        <translation>İ&amp;fade</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>&amp;Insert a function</source>
        <translation>İşlev &amp;ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add a derived quantity</source>
        <translation>Türetilmiş büyüklük ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Add the quantity</source>
        <translation>Büyüklüğü ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curve of {name}</source>
        <translation>{name} eğrisi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Curves of its names</source>
        <translation>Adlarının eğrileri</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Decimals shown</source>
        <translation>Ondalık basamak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Derived quantity {name}</source>
        <translation>Türetilmiş büyüklük {name}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Expression</source>
        <translation>İfade</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>It comes of the curves: {unit}. State another of its kind to have the numbers converted.</source>
        <translation>Eğrilerden çıkan: {unit}. Sayıların dönüştürülmesi için aynı türden başka bir birim belirtin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Last value {value}, {time}. Lowest {low}, highest {high} of {count} values.</source>
        <translation>Son değer {value}, {time}. {count} değerin en düşüğü {low}, en yükseği {high}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave as it was</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Leave without adding</source>
        <translation>Eklemeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Left empty, it is the one that comes of the curves.</source>
        <translation>Boş bırakılırsa eğrilerden çıkan birim kullanılır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Names, numbers, + - * / ** ( ) and functions, as in mean(U * I, 10 s).</source>
        <translation>Adlar, sayılar, + - * / ** ( ) ve işlevler, örneğin mean(U * I, 10 s).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value in the newest {count} samples: the curves are not there at the same time, or the result is not a number.</source>
        <translation>En yeni {count} örnekte değer yok: eğriler aynı anda bulunmuyor veya sonuç bir sayı değil.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>No value yet: there is no sample of {curve}.</source>
        <translation>Henüz değer yok: {curve} eğrisinin örneği yok.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Save the quantity</source>
        <translation>Büyüklüğü kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Still needed: {what}.</source>
        <translation>Hâlâ gerekli: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The numbers are converted to it.</source>
        <translation>Sayılar bu birime dönüştürülür.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>The result is a pure number.</source>
        <translation>Sonuç birimsiz bir sayıdır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Unit of the result</source>
        <translation>Sonucun birimi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Units are being looked up…</source>
        <translation>Birimler aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>Value now</source>
        <translation>Şimdiki değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>a name</source>
        <translation>bir ad</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>an expression</source>
        <translation>bir ifade</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>angle, in radians</source>
        <translation>açı, radyan cinsinden</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change per second</source>
        <translation>saniyedeki değişim</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>change since the sample before</source>
        <translation>önceki örneğe göre değişim</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>cosine</source>
        <translation>kosinüs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>error against a reference, in percent</source>
        <translation>referansa göre hata, yüzde olarak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>kept between two limits</source>
        <translation>iki sınır arasında tutulur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>last value, however old it is</source>
        <translation>ne kadar eski olursa olsun son değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>logarithm to base 10</source>
        <translation>10 tabanında logaritma</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>mean of the last 10 s</source>
        <translation>son 10 s&apos;nin ortalaması</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sine</source>
        <translation>sinüs</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>square root</source>
        <translation>karekök</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>sum over time: energy of a power</source>
        <translation>zaman içinde toplam: bir gücün enerjisi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the curve of {name}</source>
        <translation>{name} eğrisi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the larger one</source>
        <translation>büyük olanı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>the smaller one</source>
        <translation>küçük olanı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/derived.py"/>
        <source>without its sign</source>
        <translation>işaretsiz</translation>
    </message>
</context>
<context>
    <name>DetailPanel</name>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>After</source>
        <translation>Sonra</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer</source>
        <translation>Yanıt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Answer: {text}</source>
        <translation>Yanıt: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Applies</source>
        <translation>Geçerli</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Asks the service that has it to give it back. What has left already cannot be.</source>
        <translation>Komutu elinde tutan hizmetten geri vermesi istenir. Çıkmış olan geri alınamaz.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>By</source>
        <translation>Kim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Bytes</source>
        <translation>Bayt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command}</source>
        <translation>{command} komutunu geri çağır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Call back {command} again</source>
        <translation>{command} komutunu yeniden geri çağır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Calling {command} back…</source>
        <translation>{command} geri çağrılıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Cancel {command}</source>
        <translation>{command} komutunu iptal et</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy this line</source>
        <translation>Bu satırı kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>End</source>
        <translation>Bitiş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Event</source>
        <translation>Olay</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>History</source>
        <translation>Geçmiş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Id</source>
        <translation>Kimlik</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction</source>
        <translation>Etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id}</source>
        <translation>Etkileşim {id}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>Etkileşim {id} bu günlükte yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled any more: it is on its way to the meter.</source>
        <translation>Artık iptal edilemez: sayaca giden yolda.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>It cannot be cancelled: it has ended already.</source>
        <translation>İptal edilemez: zaten bitti.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Log of the device</source>
        <translation>Cihazın günlüğü</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No answer yet.</source>
        <translation>Henüz yanıt yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No follow-up, batch or earlier try belongs to it.</source>
        <translation>Ona ait izleyen işlem, toplu iş veya önceki deneme yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No interaction chosen.
Choose one in the log, or send a command, and follow its steps here.</source>
        <translation>Etkileşim seçilmedi.
Günlükten birini seçin veya bir komut gönderin ve adımlarını burada izleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>No rule held it up.</source>
        <translation>Hiçbir kural bekletmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {command} may have happened on {device}, or not.</source>
        <translation>Ne olduğunu kimse görmedi: {device} üzerinde {command} olmuş da olabilir, olmamış da.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or as it was before.</source>
        <translation>Ne olduğunu kimse görmedi: {device} için {title} şimdi {new} olabilir ya da önceki gibidir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nobody saw what came of it: {title} of {device} may be {new} now, or still {old}.</source>
        <translation>Ne olduğunu kimse görmedi: {device} için {title} şimdi {new} olabilir ya da hâlâ {old}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not called back: {text}</source>
        <translation>Geri çağrılmadı: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Not tried yet: nothing has left this machine.</source>
        <translation>Henüz denenmedi: bu bilgisayardan hiçbir şey çıkmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Nothing can be sent from here: this log is open for reading only.</source>
        <translation>Buradan hiçbir şey gönderilemez: bu günlük salt okunur açıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Open in Readings</source>
        <translation>Okumalarda aç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back on {device}: {command}</source>
        <translation>Geri koy ({device}): {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Put back {value} on {device}</source>
        <translation>Geri koy: {value}, {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Read back from {device}</source>
        <translation>Geri oku: {device}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reading interaction {id}…</source>
        <translation>Etkileşim {id} okunuyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Reference</source>
        <translation>Referans</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related</source>
        <translation>İlgili</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related ({count})</source>
        <translation>İlgili ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Related interactions</source>
        <translation>İlgili etkileşimler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Request</source>
        <translation>İstek</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rule</source>
        <translation>Kural</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Rules of the gatekeeper</source>
        <translation>Gönderim denetiminin kuralları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Say what {device} shows…</source>
        <translation>{device} ne gösteriyor, belirt…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Show {term} in the log</source>
        <translation>Günlükte göster: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Started</source>
        <translation>Başlangıç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Status</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Step</source>
        <translation>Adım</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Steps</source>
        <translation>Adımlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Stop {command}</source>
        <translation>{command} komutunu durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The device has written no log.</source>
        <translation>Cihaz günlük yazmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>The log keeps no verdict of the gatekeeper for it.</source>
        <translation>Günlük, onun için gönderim denetiminin kararını saklamıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>There is no answer.</source>
        <translation>Yanıt yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Time ({zone})</source>
        <translation>Zaman ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Took</source>
        <translation>Süre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries</source>
        <translation>Deneme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Tries ({count})</source>
        <translation>Denemeler ({count})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try</source>
        <translation>Deneme</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Try {command} again</source>
        <translation>{command} komutunu yeniden dene</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Views of the interaction</source>
        <translation>Etkileşimin görünümleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>What it looked at</source>
        <translation>Neye baktığı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Which rules let it go, held it up or ended it, asked again here.</source>
        <translation>Hangi kuralların geçirdiği, beklettiği veya bitirdiği; burada yeniden sorulur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why</source>
        <translation>Neden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Why: {reason}</source>
        <translation>Neden: {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>after {span}</source>
        <translation>{span} sonra</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>answered</source>
        <translation>yanıtlandı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>lost when the program ended</source>
        <translation>program kapanınca kayboldu</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>no</source>
        <translation>hayır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>since {time}</source>
        <translation>{time} anından beri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>try {number}</source>
        <translation>deneme {number}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>under way</source>
        <translation>sürüyor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>yes</source>
        <translation>evet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} is being called back: what comes of it will stand here.</source>
        <translation>{command} geri çağrılıyor: sonucu burada görünecek.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>{command} needs no parameters.</source>
        <translation>{command} parametre gerektirmez.</translation>
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
        <translation>Hiçbir sayaç yanıt vermedi. Kabloya, optik başlığa ve sayacın enerjisine bakıp yeniden algılayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>Octets came, but at no rate could they be read. Seat the optical head again, or look whether another program or meter speaks on this line.</source>
        <translation>Oktetler geldi ama hiçbir hızda okunamadı. Optik başlığı yeniden oturtun veya bu hatta başka bir program ya da sayaç olup olmadığına bakın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format} in mode {mode}.</source>
        <translation>Sayaç {format} biçiminde, {mode} modunda yanıt veriyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>The meter answers at {format}.</source>
        <translation>Sayaç {format} biçiminde yanıt veriyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>These settings were taken over, and are tried first for this model from now on.</source>
        <translation>Bu ayarlar alındı ve bundan sonra bu modelde önce bunlar denenir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by software</source>
        <translation>yazılımla</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>by the port</source>
        <translation>portla</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>found</source>
        <translation>bulundu</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>identified</source>
        <translation>tanındı</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>not found</source>
        <translation>bulunamadı</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>silent</source>
        <translation>sessiz</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/detection.py"/>
        <source>unreadable</source>
        <translation>okunamıyor</translation>
    </message>
</context>
<context>
    <name>DetectionModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Format</source>
        <translation>Biçim</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Parity</source>
        <translation>Eşlik</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received</source>
        <translation>Alınan</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Received as text</source>
        <translation>Metin olarak alınan</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Sent</source>
        <translation>Gönderilen</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Took (s)</source>
        <translation>Süre (s)</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
</context>
<context>
    <name>DeviceTreeModel</name>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Busy with {command}</source>
        <translation>Meşgul: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Commands that need it wait until it is back for 5 minutes.</source>
        <translation>Ona gereksinen komutlar, geri gelip 5 dakika kalana kadar bekler.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Drag onto a chart, or double click to add a curve.</source>
        <translation>Eğri eklemek için bir grafiğe sürükleyin veya çift tıklayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Id: {id}</source>
        <translation>Kimlik: {id}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Its generation is not managed here, so this holds nothing back.</source>
        <translation>Üretimi burada yönetilmiyor, bu yüzden hiçbir şeyi bekletmez.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last contact: {time}</source>
        <translation>Son temas: {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Last word on this: {time}</source>
        <translation>Bu konudaki son bilgi: {time}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Model: {model}</source>
        <translation>Model: {model}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Now</source>
        <translation>Şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Older than 10 minutes, so it counts as unknown and holds nothing back.</source>
        <translation>10 dakikadan eski, bu yüzden bilinmiyor sayılır ve hiçbir şeyi bekletmez.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Open issue: {what}</source>
        <translation>Açık sorun: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Serial number: {serial}</source>
        <translation>Seri numarası: {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>State, now</source>
        <translation>Durum, şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>Switched off by a person; this holds until somebody says that it is online.</source>
        <translation>Bir kişi kapalı olarak işaretledi; biri çevrimiçi olduğunu bildirene kadar geçerlidir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>empty</source>
        <translation>boş</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{age} old</source>
        <translation>{age} önceki</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total}</source>
        <translation>{n} / {total}</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} of {total} online</source>
        <translation>{n} / {total} çevrimiçi</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{n} wait</source>
        <translation>
            <numerusform>{n} bekliyor</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, value {age} old</source>
        <translation>{state}, değer {age} önceki</translation>
    </message>
    <message>
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {age} old</source>
        <translation>{state}, {age} önceki</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/device_tree.py"/>
        <source>{state}, {n} wait</source>
        <translation>
            <numerusform>{state}, {n} bekliyor</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>DevicesPanel</name>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Choose every device that matches, for one command to all of them.</source>
        <translation>Eşleşen her cihazı seçer; hepsine tek komut için.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Connect a meter</source>
        <translation>Sayaç bağla</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices</source>
        <translation>Cihazlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Devices that match</source>
        <translation>Eşleşen cihazlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Name, id, serial number, model or state; or a filter:
device name adapter kind serial model link meter site grid gateway fact.NAME
Down or Ctrl+Space shows what may stand here.</source>
        <translation>Ad, kimlik, seri numarası, model veya durum; ya da bir filtre:
device name adapter kind serial model link meter site grid gateway fact.NAME
Aşağı ok veya Ctrl+Boşluk buraya ne yazılabileceğini gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No device matches. Esc shows all.</source>
        <translation>Eşleşen cihaz yok. Esc tümünü gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>No devices yet. Connect a meter or open the demo site.</source>
        <translation>Henüz cihaz yok. Bir sayaç bağlayın veya demo sahasını açın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Open the demo site</source>
        <translation>Demo sahasını aç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices</source>
        <translation>Cihaz ara</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Search devices, or  link:fault kind:meter</source>
        <translation>Cihaz ara veya  link:fault kind:meter</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>Select all matching</source>
        <translation>Eşleşenlerin tümünü seç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} devices are chosen.</source>
        <translation>{n} cihaz seçildi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/devices.py"/>
        <source>{n} of {total} devices</source>
        <translation>{total} cihazdan {n} tanesi</translation>
    </message>
</context>
<context>
    <name>DifferenceModel</name>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># here</source>
        <translation># burada</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source># there</source>
        <translation># orada</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Here</source>
        <translation>Burada</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>There</source>
        <translation>Orada</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/models/compare.py"/>
        <source>Where</source>
        <translation>Yer</translation>
    </message>
</context>
<context>
    <name>DirectiveDialog</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Add operation</source>
        <translation>İşlem ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Down</source>
        <translation>Alt+Down</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Alt+Up</source>
        <translation>Alt+Up</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Directive</source>
        <translation>Yönerge</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Down</source>
        <translation>Aşağı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Enter at least one operation.</source>
        <translation>En az bir işlem girin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id</source>
        <translation>Kimlik</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Id of the directive</source>
        <translation>Yönergenin kimliği</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Leave as it was</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Length of the directive</source>
        <translation>Yönergenin uzunluğu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operation</source>
        <translation>İşlem</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Operations</source>
        <translation>İşlemler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Parameter</source>
        <translation>Parametre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Put into the form</source>
        <translation>Forma aktar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remark</source>
        <translation>Açıklama</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Remove operation</source>
        <translation>İşlemi kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>The gateway stores a directive and lists it. Its public device code does not execute it: readouts and load profiles follow a fixed dialogue, whatever stands here.</source>
        <translation>Ağ geçidi yönergeyi saklar ve listeler. Açık cihaz kodu onu yürütmez: readout ve yük profili, burada ne yazarsa yazsın sabit bir diyalog izler.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Up</source>
        <translation>Yukarı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unknown operation</source>
        <translation>bilinmeyen işlem</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>unusual parameter</source>
        <translation>alışılmadık parametre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>{count} of {most} characters</source>
        <translation>{count} / {most} karakter</translation>
    </message>
</context>
<context>
    <name>DirectiveList</name>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n cannot be read.</source>
        <translation>
            <numerusform>%n tanesi okunamıyor.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>%n directives are stored; the public device code executes none.</source>
        <translation>
            <numerusform>%n yönerge saklı; açık cihaz kodu hiçbirini yürütmez.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>(without id)</source>
        <translation>(kimliksiz)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete {name}…</source>
        <translation>{name} yönergesini sil…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Delete…</source>
        <translation>Sil…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Directive</source>
        <translation>Yönerge</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Edit as new…</source>
        <translation>Yeni olarak düzenle…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>No directive is stored.</source>
        <translation>Saklanan yönerge yok.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Parameter</source>
        <translation>Parametre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>Stored directives</source>
        <translation>Saklanan yönergeler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>damaged: {what}</source>
        <translation>hasarlı: {what}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/directive_list.py"/>
        <source>only a part of it came</source>
        <translation>yalnızca bir bölümü geldi</translation>
    </message>
</context>
<context>
    <name>DonePage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Close</source>
        <translation>Ka&amp;pat</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Go to {name}</source>
        <translation>{name} cihazına &amp;git</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Connect &amp;another</source>
        <translation>&amp;Başka cihaz bağla</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Saved</source>
        <translation>Kaydedildi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Start its &amp;flow: commission {name}</source>
        <translation>&amp;Akışını başlat: {name} devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>The connection opens by itself. What it says stands in the device list and under Log.</source>
        <translation>Bağlantı kendiliğinden açılır. Bildirdikleri cihaz listesinde ve Günlük altında yer alır.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} are saved.</source>
        <translation>{names} kaydedildi.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{names} is saved.</source>
        <translation>{names} kaydedildi.</translation>
    </message>
</context>
<context>
    <name>ErrorPlot</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error over time; its last value stands above as text</source>
        <translation>Zaman içinde anlık hata; son değeri yukarıda metin olarak yazar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The running error is drawn here.</source>
        <translation>Anlık hata burada çizilir.</translation>
    </message>
</context>
<context>
    <name>Event</name>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>abort</source>
        <translation>vazgeçildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>accepted</source>
        <translation>kabul edildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>admit</source>
        <translation>izin verildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>adopted</source>
        <translation>devralındı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>again</source>
        <translation>yeniden</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>answered</source>
        <translation>yanıtlandı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>asked</source>
        <translation>istendi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>at the head-end</source>
        <translation>merkez sistemde</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>defer</source>
        <translation>ertelendi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>done</source>
        <translation>bitti</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>fail</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>failure</source>
        <translation>ret</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>found</source>
        <translation>bulundu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>handed on</source>
        <translation>iletildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late</source>
        <translation>gecikmeli</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late failure</source>
        <translation>gecikmeli başarısızlık</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>late success</source>
        <translation>gecikmeli başarı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>lose sight</source>
        <translation>izi kayboldu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>matched</source>
        <translation>eşleşti</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>no token</source>
        <translation>jeton yok</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not cancelled</source>
        <translation>iptal edilmedi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>phase {phase} given up</source>
        <translation>{phase} aşamasından vazgeçildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>picked</source>
        <translation>seçildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>queued</source>
        <translation>kuyrukta</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reached</source>
        <translation>ulaştı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>read back</source>
        <translation>geri okundu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>reading back</source>
        <translation>geri okunuyor</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>received</source>
        <translation>alındı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>refuse token</source>
        <translation>jeton reddedildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>report</source>
        <translation>bildirildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry</source>
        <translation>yeni deneme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>said</source>
        <translation>bildirildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>saved</source>
        <translation>kaydedildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>send</source>
        <translation>gönderme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>sent</source>
        <translation>gönderildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shared</source>
        <translation>paylaşıldı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>shown</source>
        <translation>gösterildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>standing still</source>
        <translation>duruyor</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>succeed</source>
        <translation>başarılı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>success</source>
        <translation>başarı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>supersede</source>
        <translation>yerine geçildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>suspend</source>
        <translation>duraklatıldı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token</source>
        <translation>jeton</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>token asked</source>
        <translation>jeton istendi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>transmitted</source>
        <translation>iletildi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>triage</source>
        <translation>sonradan inceleme</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>tried again</source>
        <translation>yeniden denendi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uncertain</source>
        <translation>belirsiz</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>uninstall</source>
        <translation>devreden çıkarıldı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unsolicited</source>
        <translation>istenmeden</translation>
    </message>
</context>
<context>
    <name>Exporter</name>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>A file is still being written: wait until it is done.</source>
        <translation>Hâlâ bir dosya yazılıyor: bitene kadar bekleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Nothing was written: set the cursors A and B first.</source>
        <translation>Hiçbir şey yazılmadı: önce A ve B imleçlerini koyun.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Print the chart</source>
        <translation>Grafiği yazdır</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be printed: the printer {0} does not answer. Choose another one.</source>
        <translation>Grafik yazdırılamadı: {0} yazıcısı yanıt vermiyor. Başka bir yazıcı seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>The chart could not be written to {0}: {1}. Choose another folder.</source>
        <translation>Grafik {0} dosyasına yazılamadı: {1}. Başka bir klasör seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write a picture</source>
        <translation>Resim yaz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>Write the samples</source>
        <translation>Örnekleri yaz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/exports.py"/>
        <source>the file cannot be opened</source>
        <translation>dosya açılamıyor</translation>
    </message>
</context>
<context>
    <name>FieldState</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>Firmware: {share} % of {size} bytes fetched.</source>
        <translation>Aygıt yazılımı: {size} baytın %{share} kadarı alındı.</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>dark</source>
        <translation>enerjisiz</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>lit</source>
        <translation>enerjili</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>offline</source>
        <translation>çevrimdışı</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>çevrimiçi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>stale</source>
        <translation>eski</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is dark: commands to its meters wait until it is lit for 5 minutes.</source>
        <translation>{name} enerjisiz: sayaçlarına komutlar, 5 dakika enerjili kalana kadar bekler.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is lit. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} enerjili. Onu bekleyenler 5 kararlı dakikadan sonra sürer.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is off: commands that need it wait until somebody says that it is online.</source>
        <translation>{name} kapalı: ona gereksinen komutlar, biri çevrimiçi olduğunu bildirene kadar bekler.</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{name} is online. What waits for it goes on after 5 stable minutes.</source>
        <translation>{name} çevrimiçi. Onu bekleyenler 5 kararlı dakikadan sonra sürer.</translation>
    </message>
</context>
<context>
    <name>Flag</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock ran on its battery or reserve, so the time may be wrong.</source>
        <translation>Saat pil veya yedekle çalıştı, bu yüzden zaman yanlış olabilir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The clock was set in this period: it is longer or shorter than the others.</source>
        <translation>Bu dönemde saat ayarlandı: dönem diğerlerinden uzun veya kısa.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The maxima were reset in this period: a billing period ended.</source>
        <translation>Bu dönemde maksimumlar sıfırlandı: bir fatura dönemi bitti.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter itself says that this value is disturbed. Do not bill it.</source>
        <translation>Sayacın kendisi bu değerin bozuk olduğunu söylüyor. Faturalamayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter reports a fatal error. Look at its error register F.F.</source>
        <translation>Sayaç ağır bir hata bildiriyor. Hata registeri F.F&apos;ye bakın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply came back in this period.</source>
        <translation>Bu dönemde enerji geri geldi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The supply failed in this period, so its value stands for a shorter time.</source>
        <translation>Bu dönemde enerji kesildi, bu yüzden değeri daha kısa bir süreyi temsil eder.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The time is summer time.</source>
        <translation>Zaman yaz saatidir.</translation>
    </message>
</context>
<context>
    <name>Flow</name>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>(from step {step}: {name})</source>
        <translation>({step} adımından: {name})</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>A person looks and answers.</source>
        <translation>Bir kişi bakar ve yanıtlar.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Commissions the meter by its six steps, and takes over how they end.</source>
        <translation>Sayacı altı adımla devreye alır ve nasıl bittiklerini devralır.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Failed after {span}. {text}</source>
        <translation>{span} sonra başarısız oldu. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}.</source>
        <translation>{command} komutunu verir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Gives the command {command}: {given}.</source>
        <translation>{command} komutunu verir: {given}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Judges what earlier steps read.</source>
        <translation>Önceki adımların okuduklarını değerlendirir.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Passed in {span}: {text}</source>
        <translation>{span} içinde geçti: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, did not pass.</source>
        <translation>Adım {number}, {step}, geçmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, has not begun: it waits for your word.</source>
        <translation>Adım {number}, {step}, başlamadı: onayınızı bekliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, is under way. {why}</source>
        <translation>Adım {number}, {step}, sürüyor. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Step {number}, {step}, needs you: look and answer.</source>
        <translation>Adım {number}, {step}, sizi bekliyor: bakın ve yanıtlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>Stopped after {span}. {text}</source>
        <translation>{span} sonra durduruldu. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>a text of the form {form}</source>
        <translation>{form} biçiminde bir metin</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at least {low}</source>
        <translation>en az {low}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>at most {high}</source>
        <translation>en çok {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>from {low} to {high}</source>
        <translation>{low} – {high}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>met</source>
        <translation>karşılandı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not begun</source>
        <translation>başlamadı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not met</source>
        <translation>karşılanmadı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>not run</source>
        <translation>yürütülmedi</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>nothing</source>
        <translation>hiçbir şey</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>now</source>
        <translation>şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>one of {values}</source>
        <translation>şunlardan biri: {values}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>open</source>
        <translation>açık</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>passed</source>
        <translation>geçti</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>paused</source>
        <translation>duraklatıldı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>recorded</source>
        <translation>kaydedildi</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>skipped</source>
        <translation>atlandı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>something</source>
        <translation>bir şey</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>stopped</source>
        <translation>durduruldu</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>under way</source>
        <translation>sürüyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>waits for you</source>
        <translation>sizi bekliyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>warning</source>
        <translation>uyarı</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>within {span} of {moment}</source>
        <translation>{moment} anına en çok {span} uzak</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{done} of {all} steps</source>
        <translation>{all} adımdan {done}</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{text} Step {number}, {step}, is next when it goes on.</source>
        <translation>{text} Sürdürüldüğünde sırada adım {number}, {step}, var.</translation>
    </message>
    <message>
        <location filename="../../ui/models/flow_run.py"/>
        <source>{value} within {tolerance}</source>
        <translation>{value}, tolerans {tolerance}</translation>
    </message>
</context>
<context>
    <name>FlowCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be read: {why}.</source>
        <translation>{name} okunamıyor: {why}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is no picture that can be shown. Choose a JPEG or PNG.</source>
        <translation>{name} gösterilebilecek bir resim değil. Bir JPEG veya PNG seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} is {size} MiB; up to {most} MiB can be kept.</source>
        <translation>{name} {size} MiB; en çok {most} MiB saklanabilir.</translation>
    </message>
</context>
<context>
    <name>FlowPanel</name>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>All its steps are done once more, from the first. It only reads.</source>
        <translation>Tüm adımları baştan bir kez daha yapılır. Yalnızca okur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Flow</source>
        <translation>Akış</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No meter chosen.
Choose a meter or gateway in the tree on the left to run a flow.</source>
        <translation>Sayaç seçilmedi.
Akış yürütmek için soldaki ağaçtan bir sayaç veya ağ geçidi seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>No run is shown. Choose a device and one of its runs on the tab Flow first.</source>
        <translation>Gösterilen yürütme yok. Önce bir cihaz ve Akış sekmesinde yürütmelerinden birini seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Nothing can be started from here: this is a recording, or a log opened for reading.</source>
        <translation>Buradan hiçbir şey başlatılamaz: bu bir kayıt veya okumak için açılmış bir günlük.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Run “{flow}” on {name} again?</source>
        <translation>“{flow}” akışı {name} üzerinde yeniden yürütülsün mü?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>Start “{flow}” on {name}</source>
        <translation>“{flow}” akışını başlat: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>These steps change the device:
{writes}
{warnings}</source>
        <translation>Bu adımlar cihazı değiştirir:
{writes}
{warnings}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} failed. {text}</source>
        <translation>{name} üzerindeki {flow} başarısız oldu. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} passed.</source>
        <translation>{name} üzerindeki {flow} geçti.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{flow} on {name} waits for you: {text}</source>
        <translation>{name} üzerindeki {flow} sizi bekliyor: {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} is in the flow {flow} (run {run}). Open it in the list of runs, or stop it first.</source>
        <translation>{name}, {flow} akışında (yürütme {run}). Yürütme listesinden açın veya önce durdurun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flows.py"/>
        <source>{name} only groups others.
Choose a meter or gateway below it to run a flow.</source>
        <translation>{name} yalnızca başkalarını gruplar.
Akış yürütmek için altındaki bir sayacı veya ağ geçidini seçin.</translation>
    </message>
</context>
<context>
    <name>FlowStatus</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>bitti</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>not begun</source>
        <translation>başlamadı</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>under way</source>
        <translation>sürüyor</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits</source>
        <translation>bekliyor</translation>
    </message>
</context>
<context>
    <name>FolderField</name>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose the folder for exports</source>
        <translation>Dışa aktarma klasörünü seç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Choose…</source>
        <translation>Seç…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Offered first when a file is written for others. Empty: where the last one went</source>
        <translation>Başkaları için dosya yazılırken ilk önerilen. Boş: sonuncunun yazıldığı yer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>There is no such folder on this computer.</source>
        <translation>Bu bilgisayarda böyle bir klasör yok.</translation>
    </message>
</context>
<context>
    <name>FollowDialog</name>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>&amp;Open the command</source>
        <translation>Komutu &amp;aç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>All &amp;links of the device</source>
        <translation>Cihazın tüm &amp;bağlantıları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>As &amp;hex</source>
        <translation>&amp;Hex olarak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Bytes in their order</source>
        <translation>Sırasıyla baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>{id} etkileşiminin çevresindeki baytları izle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Reading…</source>
        <translation>Okunuyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show &amp;earlier ones</source>
        <translation>Ö&amp;ncekileri göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Show l&amp;ater ones</source>
        <translation>&amp;Sonrakileri göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>These are the newest.</source>
        <translation>Bunlar en yenileri.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>Times in {zone}.</source>
        <translation>Saatler {zone} diliminde.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>bytes</source>
        <translation>baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>cut off</source>
        <translation>kesildi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>try</source>
        <translation>deneme</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on all its links.</source>
        <translation>{device} cihazının tüm bağlantılarındaki {n} çerçeve.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>{n} frames of {device} on {link}.</source>
        <translation>{link} üzerinde {device} cihazının {n} çerçevesi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/follow.py"/>
        <source>… {n} more bytes</source>
        <translation>… {n} bayt daha</translation>
    </message>
</context>
<context>
    <name>Habits</name>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>A write is under way</source>
        <translation>Bir yazma sürüyor</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>If this workspace is closed now, its outcome may stay unknown. It stands in the log and is checked when the workspace is opened next.</source>
        <translation>Bu çalışma alanı şimdi kapatılırsa sonucu bilinmeden kalabilir. Günlükte yer alır ve çalışma alanı yeniden açıldığında denetlenir.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} all the same</source>
        <translation>{name} yine de açılsın</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Open {name} now? A command that changes a meter is on its way.</source>
        <translation>{name} şimdi açılsın mı? Bir sayacı değiştiren bir komut yolda.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Read a site file</source>
        <translation>Saha dosyası oku</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Stay here</source>
        <translation>Burada kal</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>Take it off the list</source>
        <translation>Listeden çıkar</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>The log folder is {folder}. No program of this computer opens folders from here.</source>
        <translation>Günlük klasörü: {folder}. Bu bilgisayarda buradan klasör açacak bir program yok.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} is a table that is neither a log nor a site file; nothing here can be done with it.</source>
        <translation>{name} ne günlük ne de saha dosyası olan bir tablo; burada onunla bir şey yapılamaz.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{name} looks like a batch. Open the workspace in which it is to be carried out, then try again.</source>
        <translation>{name} bir toplu işe benziyor. Yürütüleceği çalışma alanını açıp yeniden deneyin.</translation>
    </message>
    <message>
        <location filename="../../ui/habits.py"/>
        <source>{path} is not there any more: it was moved, or its disk is not connected.</source>
        <translation>{path} artık orada değil: taşınmış veya diski bağlı değil.</translation>
    </message>
</context>
<context>
    <name>Heard</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>heard</source>
        <translation>haber var</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard just now</source>
        <translation>az önce haber alındı</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>heard {age} ago</source>
        <translation>{age} önce haber alındı</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>just now</source>
        <translation>şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>never heard</source>
        <translation>haber yok</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>silent</source>
        <translation>sessiz</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>silent {age}</source>
        <translation>{age} sessiz</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>{age} ago</source>
        <translation>{age} önce</translation>
    </message>
</context>
<context>
    <name>HexView</name>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Bytes</source>
        <translation>Bayt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as hexadecimal</source>
        <translation>Onaltılık olarak kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Copy as text</source>
        <translation>Metin olarak kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>Select all</source>
        <translation>Tümünü seç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/hex_view.py"/>
        <source>byte {offset}: 0x{value:02x} = {value}</source>
        <translation>bayt {offset}: 0x{value:02x} = {value}</translation>
    </message>
</context>
<context>
    <name>Issue</name>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no communication</source>
        <translation>haberleşme yok</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>no credit</source>
        <translation>kredi yok</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected meter status</source>
        <translation>beklenmeyen sayaç durumu</translation>
    </message>
    <message>
        <location filename="../../ui/field_state.py"/>
        <source>unexpected power limit</source>
        <translation>beklenmeyen güç sınırı</translation>
    </message>
</context>
<context>
    <name>KindsPage</name>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>&amp;Go on</source>
        <translation>&amp;Devam</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Choose what is in front of you.</source>
        <translation>Önünüzde ne olduğunu seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Nothing is called {text}. Clear the search, or enter the connection by hand.</source>
        <translation>{text} adında bir şey yok. Aramayı temizleyin veya bağlantıyı elle girin.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Search for a meter, gateway or service</source>
        <translation>Sayaç, ağ geçidi veya hizmet ara</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>Type a name: meter, LEM, gateway, ChirpStack...</source>
        <translation>Bir ad yazın: sayaç, LEM, ağ geçidi, ChirpStack...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you</source>
        <translation>Önünüzdeki cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What is in front of you?</source>
        <translation>Önünüzde ne var?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/kinds.py"/>
        <source>What it needs is not installed on this computer.</source>
        <translation>Gerektirdiği bileşen bu bilgisayarda kurulu değil.</translation>
    </message>
</context>
<context>
    <name>Lab</name>
    <message>
        <location filename="../../ui/dialogs/lab.py"/>
        <source>{what} of {device}</source>
        <translation>{device}: {what}</translation>
    </message>
</context>
<context>
    <name>LabRecords</name>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>A derived quantity of this workspace cannot be read: {why}</source>
        <translation>Bu çalışma alanının bir türetilmiş büyüklüğü okunamıyor: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The notes of this workspace cannot be read: {why}</source>
        <translation>Bu çalışma alanının notları okunamıyor: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>The recordings of this workspace cannot be read: {why}</source>
        <translation>Bu çalışma alanının kayıtları okunamıyor: {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} derived quantities, which is the most: remove one that is no longer needed.</source>
        <translation>{n} türetilmiş büyüklük var, üst sınır bu: artık gerekmeyen birini kaldırın.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There are {n} thresholds, which is the most: remove one that is no longer needed.</source>
        <translation>{n} eşik var, üst sınır bu: artık gerekmeyen birini kaldırın.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>There is such a threshold already: {name}.</source>
        <translation>Böyle bir eşik zaten var: {name}.</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>This is not kept. {why}</source>
        <translation>Bu saklanmadı. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} added</source>
        <translation>{name} notu eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} changed</source>
        <translation>{name} notu değiştirildi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the note {name} removed</source>
        <translation>{name} notu kaldırıldı</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} added</source>
        <translation>{name} büyüklüğü eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} changed</source>
        <translation>{name} büyüklüğü değiştirildi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the quantity {name} removed</source>
        <translation>{name} büyüklüğü kaldırıldı</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} added</source>
        <translation>{name} eşiği eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} changed</source>
        <translation>{name} eşiği değiştirildi</translation>
    </message>
    <message>
        <location filename="../../ui/lab_records.py"/>
        <source>the threshold {name} removed</source>
        <translation>{name} eşiği kaldırıldı</translation>
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
        <translation>Türetilmiş büyüklükler</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit the derived quantity {name}</source>
        <translation>Türetilmiş büyüklüğü düzenle: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Edit…</source>
        <translation>Düzenle…</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Export {name}</source>
        <translation>Dışa aktar: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Notes</source>
        <translation>Notlar</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>On this chart</source>
        <translation>Bu grafikte</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Parquet (*.parquet)</source>
        <translation>Parquet (*.parquet)</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>References</source>
        <translation>Referanslar</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove</source>
        <translation>Kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove the derived quantity {name}</source>
        <translation>Türetilmiş büyüklüğü kaldır: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Remove {curve} of {source}</source>
        <translation>{curve} eğrisini kaldır ({source})</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>Thresholds</source>
        <translation>Eşikler</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>derived</source>
        <translation>türetilmiş</translation>
    </message>
    <message>
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name} on this chart, or off it</source>
        <translation>{name} bu grafikte gösterilsin veya gizlensin</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/lab_verbs.py"/>
        <source>{name}: {n} curves were written to {path}.</source>
        <translation>
            <numerusform>{name}: {n} eğri {path} dosyasına yazıldı.</numerusform>
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
        <translation>Yaş</translation>
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
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Energy, charge</source>
        <translation>Enerji, elektrik yükü</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Max</source>
        <translation>Maks</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Mean</source>
        <translation>Ortalama</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Now</source>
        <translation>Şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Quantity</source>
        <translation>Büyüklük</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>RMS</source>
        <translation>RMS</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Samples/s</source>
        <translation>Örnek/s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per h</source>
        <translation>Eğim, sa başına</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Slope per s</source>
        <translation>Eğim, s başına</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Std dev</source>
        <translation>Std. sapma</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>Unit</source>
        <translation>Birim</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: above {2} {1}</source>
        <translation>{0} {1}: {2} {1} üstünde</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/legend.py"/>
        <source>{0} {1}: below {2} {1}</source>
        <translation>{0} {1}: {2} {1} altında</translation>
    </message>
</context>
<context>
    <name>LinkState</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>connecting</source>
        <translation>bağlanıyor</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>arıza</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>off</source>
        <translation>kapalı</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>online</source>
        <translation>çevrimiçi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replay</source>
        <translation>yeniden oynatma</translation>
    </message>
</context>
<context>
    <name>LiveChart</name>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>All that is loaded</source>
        <translation>Yüklenenlerin tümü</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pictures.py"/>
        <source>Chart</source>
        <translation>Grafik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Clear the chart</source>
        <translation>Grafiği temizle</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Columns</source>
        <translation>Sütunlar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Copy the picture</source>
        <translation>Resmi kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor A here</source>
        <translation>A imleci buraya</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Cursor B here</source>
        <translation>B imleci buraya</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/labels.py"/>
        <source>Drag a quantity here from the device tree,
or double-click one there to chart it.</source>
        <translation>Cihaz ağacından bir büyüklüğü buraya sürükleyin
veya çizmek için orada çift tıklayın.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Export</source>
        <translation>Dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Fit</source>
        <translation>Sığdır</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>From A to B</source>
        <translation>A&apos;dan B&apos;ye</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>In {0}…</source>
        <translation>{0} içinde…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Live chart</source>
        <translation>Canlı grafik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>No cursors</source>
        <translation>İmleç yok</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note here…</source>
        <translation>Buraya not…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Note…</source>
        <translation>Not…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Open a note</source>
        <translation>Notu aç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as PNG…</source>
        <translation>PNG olarak resim…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Picture as SVG…</source>
        <translation>SVG olarak resim…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Plot area</source>
        <translation>Çizim alanı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Print…</source>
        <translation>Yazdır…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put back with its unit</source>
        <translation>Birimiyle aynı eksene geri koy</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put on an axis of its own</source>
        <translation>Kendi eksenine koy</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Put with {0}</source>
        <translation>{0} ile aynı eksene koy</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Örnekler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as CSV…</source>
        <translation>CSV olarak örnekler…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Samples as Parquet…</source>
        <translation>Parquet olarak örnekler…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>Space holds the picture, the arrows move it, plus and minus zoom, F fits. A and B place the cursors, with Shift and Alt the arrows move them. N writes a note. The samples are in the table below.</source>
        <translation>Boşluk tuşu görüntüyü durdurur, ok tuşları kaydırır, artı ve eksi yakınlaştırır, F sığdırır. A ve B imleçleri koyar, Shift ve Alt ile ok tuşları imleçleri taşır. N not yazar. Örnekler alttaki tablodadır.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Statistics</source>
        <translation>İstatistik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Take off the chart</source>
        <translation>Grafikten çıkar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>The chart has {0} curves, which is the most: take one off, or add a chart for {1}.</source>
        <translation>Grafikte {0} eğri var, üst sınır bu: birini çıkarın veya {1} için bir grafik ekleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>The visible range</source>
        <translation>Görünen aralık</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold</source>
        <translation>Eşik</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <source>Threshold here…</source>
        <translation>Buraya eşik…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/pointer.py"/>
        <source>and {0} more in the list below</source>
        <translation>ve alttaki listede {0} tane daha</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>clock of {0}, {1}, {2}</source>
        <translation>{0} saati, {1}, {2}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/menus.py"/>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>no unit</source>
        <translation>birim yok</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/live_chart.py"/>
        <source>reference</source>
        <translation>referans</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, no meter has told its own, {0}, {1}</source>
        <translation>bu bilgisayarın saati, hiçbir sayaç kendi saatini bildirmedi, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time of this computer, {0}, {1}</source>
        <translation>bu bilgisayarın saati, {0}, {1}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/clock.py"/>
        <source>time since the first sample</source>
        <translation>ilk örnekten beri geçen süre</translation>
    </message>
</context>
<context>
    <name>LogColours</name>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Amber, triangle</source>
        <translation>Kehribar, üçgen</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Blue, filled circle</source>
        <translation>Mavi, dolu daire</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Cyan, hollow diamond</source>
        <translation>Camgöbeği, boş eşkenar dörtgen</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Green, filled diamond</source>
        <translation>Yeşil, dolu eşkenar dörtgen</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Red, octagon</source>
        <translation>Kırmızı, sekizgen</translation>
    </message>
    <message>
        <location filename="../../ui/log_colours.py"/>
        <source>Violet, half diamond</source>
        <translation>Mor, yarım eşkenar dörtgen</translation>
    </message>
</context>
<context>
    <name>LogPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>%n new below</source>
        <translation>
            <numerusform>Altta %n yeni</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply also: {term}</source>
        <translation>Ayrıca uygula: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Apply as filter: {term}</source>
        <translation>Filtre olarak uygula: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Compare interaction {id} with another…</source>
        <translation>Etkileşim {id} başka biriyle karşılaştırılsın…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy cell</source>
        <translation>Hücreyi kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Copy row</source>
        <translation>Satırı kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Exclude: {term}</source>
        <translation>Dışarıda bırak: {term}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export what the filter shows</source>
        <translation>Filtrenin gösterdiklerini dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Export…</source>
        <translation>Dışa aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filter, for example  status:failed device:lem-1</source>
        <translation>Filtre, örneğin  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Filters used before</source>
        <translation>Daha önce kullanılan filtreler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow</source>
        <translation>İzle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Follow the bytes around interaction {id}</source>
        <translation>{id} etkileşiminin çevresindeki baytları izle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Interactions</source>
        <translation>Etkileşimler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Log</source>
        <translation>Günlük</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log</source>
        <translation>Günlük taranıyor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Looking through the log…</source>
        <translation>Günlük taranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>No filter used yet</source>
        <translation>Henüz kullanılan filtre yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Nothing in the log matches this filter.
Press Esc in the filter line to see everything.</source>
        <translation>Günlükte bu filtreyle eşleşen bir şey yok.
Her şeyi görmek için filtre satırında Esc tuşuna basın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Read the log again</source>
        <translation>Günlüğü yeniden oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Recent</source>
        <translation>Son</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Rows shown</source>
        <translation>Gösterilen satırlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Show interaction {id}</source>
        <translation>Etkileşim {id}: göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stay at the newest row</source>
        <translation>En yeni satırda kal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stop looking</source>
        <translation>Taramayı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>Stopped. Only the newest rows are shown; apply the filter again to see all.</source>
        <translation>Durduruldu. Yalnızca en yeni satırlar gösteriliyor; tümünü görmek için filtreyi yeniden uygulayın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>The log is empty.
Connect a meter and send a command, or open a log that somebody sent you.</source>
        <translation>Günlük boş.
Bir sayaç bağlayıp komut gönderin veya birinin gönderdiği bir günlüğü açın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/log.py"/>
        <source>counting…</source>
        <translation>sayılıyor…</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/log.py"/>
        <source>{rows} rows</source>
        <translation>
            <numerusform>{rows} satır</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>LogTableModel</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Coloured by the rule {name}</source>
        <translation>{name} kuralıyla renklendirildi</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Duration</source>
        <translation>Süre</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Id</source>
        <translation>Kimlik</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Origin</source>
        <translation>Kaynak</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Reason</source>
        <translation>Neden</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Status</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Time ({zone})</source>
        <translation>Zaman ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Tries</source>
        <translation>Deneme</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
</context>
<context>
    <name>MainWindow</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>A write is under way</source>
        <translation>Bir yazma sürüyor</translation>
    </message>
    <message>
        <source>Accuracy</source>
        <translation type="vanished">Doğruluk</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Arm for {n} min</source>
        <translation>{n} dk izin ver</translation>
    </message>
    <message>
        <source>Batch</source>
        <translation type="vanished">Toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Command</source>
        <translation>Komut</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Commands that wait for it are given up. Its log stays, and this can be undone.</source>
        <translation>Onu bekleyen komutlardan vazgeçilir. Günlüğü kalır ve bu geri alınabilir.</translation>
    </message>
    <message>
        <source>Commissioning</source>
        <translation type="vanished">Devreye alma</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation type="vanished">Karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Devices</source>
        <translation>Cihazlar</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>End the &amp;recording: {name}</source>
        <translation>Kaydı &amp;bitir: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Export the log</source>
        <translation>Günlüğü dışa aktar</translation>
    </message>
    <message>
        <source>Flow</source>
        <translation type="vanished">Akış</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>From now on {name} is reached this way: {way}.</source>
        <translation>{name} cihazına bundan sonra şu yolla ulaşılır: {way}.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Go on reading</source>
        <translation>Okumayı sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>If you leave now, its outcome may stay unknown. It stands in the log and is checked at the next start.</source>
        <translation>Şimdi çıkarsanız sonucu bilinmeden kalabilir. Günlükte yer alır ve sonraki başlatmada denetlenir.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Interaction</source>
        <translation>Etkileşim</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Leave all the same</source>
        <translation>Yine de çık</translation>
    </message>
    <message>
        <source>Live</source>
        <translation type="vanished">Canlı</translation>
    </message>
    <message>
        <source>Log</source>
        <translation type="vanished">Günlük</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Log open for reading</source>
        <translation>Günlük okumak için açıldı</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Looking through {name}…</source>
        <translation>{name} inceleniyor…</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>New workspace</source>
        <translation>Yeni çalışma alanı</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Nothing can be sent from here: this is a recording. Open its workspace to send.</source>
        <translation>Buradan hiçbir şey gönderilemez: bu bir kayıttır. Göndermek için çalışma alanını açın.</translation>
    </message>
    <message>
        <source>Objects</source>
        <translation type="vanished">Nesneler</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Only reading again: {n} minutes are over. What was sent goes on.</source>
        <translation>Yeniden yalnızca okuma: {n} dakika doldu. Gönderilenler sürer.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a log for reading</source>
        <translation>Okumak için günlük aç</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open a workspace</source>
        <translation>Çalışma alanı aç</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open it for reading</source>
        <translation>Okumak için aç</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Open {name} to work with it, and not only to read it?</source>
        <translation>{name} yalnızca okumak için değil, çalışmak için açılsın mı?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>REPLAY of {name}</source>
        <translation>{name} YENİDEN OYNATILIYOR</translation>
    </message>
    <message>
        <source>Readings</source>
        <translation type="vanished">Okumalar</translation>
    </message>
    <message>
        <source>Recordings</source>
        <translation type="vanished">Kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name}</source>
        <translation>{name} cihazını kaldır</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} and the {n} devices below it from this workspace?</source>
        <translation>
            <numerusform>{name} ve altındaki {n} cihaz bu çalışma alanından kaldırılsın mı?</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Remove {name} from this workspace?</source>
        <translation>{name} bu çalışma alanından kaldırılsın mı?</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay</source>
        <translation>Yeniden oynatma</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Replay a log</source>
        <translation>Günlüğü yeniden oynat</translation>
    </message>
    <message>
        <source>Signed records</source>
        <translation type="vanished">İmzalı kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Stay</source>
        <translation>Kal</translation>
    </message>
    <message>
        <source>System</source>
        <translation type="vanished">Sistem</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The links of its devices are opened, and what happens from now on is written to it.</source>
        <translation>Cihazlarının bağlantıları açılır ve bundan sonra olanlar ona yazılır.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>The way {way} to {name} is forgotten.</source>
        <translation>{name} için {way} yolu unutuldu.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This is a replay: no meter is connected, so nothing can be sent. To send, open a workspace.</source>
        <translation>Bu bir yeniden oynatmadır: bağlı sayaç yoktur, hiçbir şey gönderilemez. Göndermek için bir çalışma alanı açın.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>This log is open for reading. Nothing can be sent to a meter.</source>
        <translation>Bu günlük okumak için açıldı. Sayaca hiçbir şey gönderilemez.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Tool bar</source>
        <translation>Araç çubuğu</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undo</source>
        <translation>Geri al</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Undone: {what}</source>
        <translation>Geri alındı: {what}</translation>
    </message>
    <message>
        <source>Views</source>
        <translation type="vanished">Görünümler</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Welcome</source>
        <translation>Karşılama</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Work with {name}</source>
        <translation>{name} ile çalış</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>another way to {name}: {way}</source>
        <translation>{name} için başka bir yol: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} added</source>
        <translation>{name} için {way} yolu eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>the way {way} to {name} forgotten</source>
        <translation>{name} için {way} yolu unutuldu</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{command} on {device} is on its way.</source>
        <translation>{device} cihazına {command} komutu yolda.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} (read only)</source>
        <translation>{name} (salt okunur)</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} - Meterwright</source>
        <translation>{name} - Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} added</source>
        <translation>{name} eklendi</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} can also be reached this way now: {way}. Device &gt; Reach it switches to it.</source>
        <translation>{name} cihazına artık şu yolla da ulaşılabilir: {way}. Cihaz &gt; Ulaşım yolu ile geçilir.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} changed</source>
        <translation>{name} değiştirildi</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} has no read command that needs no parameter.</source>
        <translation>{name} cihazının parametre gerektirmeyen okuma komutu yok.</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{name} removed</source>
        <translation>{name} kaldırıldı</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{n} commands that change a meter are on their way.</source>
        <translation>Bir sayacı değiştiren {n} komut yolda.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/main_window.py"/>
        <source>{n} of its commands are not finished; those that wait may be sent.</source>
        <translation>
            <numerusform>{n} komutu bitmedi; bekleyenler gönderilebilir.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>{path} was written.</source>
        <translation>{path} yazıldı.</translation>
    </message>
</context>
<context>
    <name>Model</name>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1 is the last, -2 the one before it; 0 and up are places in the meter&apos;s memory.</source>
        <translation>-1 sonuncu, -2 ondan önceki; 0 ve üstü sayacın belleğindeki yerlerdir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>-1: leave the meter alone. The manufacturer asks that this be set once in the meter&apos;s life.</source>
        <translation>-1: sayaca dokunma. Üretici, bunun sayacın ömründe bir kez ayarlanmasını ister.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 to 31; 10 is -93 dBm. A module that knows none says 99.</source>
        <translation>0 – 31; 10, -93 dBm&apos;dir. Bilmeyen modül 99 der.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>0 where no source is connected.</source>
        <translation>Kaynak bağlı değilse 0.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: any free one.</source>
        <translation>0: boş herhangi biri.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0: as long as an answer is waited for; a server waits 10 s at least.</source>
        <translation>0: yanıt beklendiği sürece; sunucu en az 10 s bekler.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>0: every two minutes with a webhook; without one faster at first, later every half minute.</source>
        <translation>0: webhook ile iki dakikada bir; webhook yoksa önce daha hızlı, sonra her yarım dakikada bir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>0: no limit.</source>
        <translation>0: sınır yok.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>0: no webhook; events then come over MQTT.</source>
        <translation>0: webhook yok; olaylar MQTT üzerinden gelir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>0: the one it tells, else 2622.</source>
        <translation>0: bildirdiği port, yoksa 2622.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>0x8005 over channel 22.</source>
        <translation>Kanal 22 üzerinden 0x8005.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the logical name, 2 mostly the value.</source>
        <translation>1 mantıksal ad, 2 çoğunlukla değerdir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 is the management logical device.</source>
        <translation>1, yönetim mantıksal cihazıdır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>1 octet</source>
        <translation>1 oktet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>1 to 37 bytes. Empty: the running one, else the last.</source>
        <translation>1 – 37 bayt. Boş: süren, yoksa sonuncu.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>1 to 37 bytes; letters, digits and - . _ ~ are safe.</source>
        <translation>1 – 37 bayt; harf, rakam ve - . _ ~ güvenlidir.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>127.0.0.1 is this computer only; choose an address of the device&apos;s network.</source>
        <translation>127.0.0.1 yalnızca bu bilgisayardır; cihazın ağından bir adres seçin.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 % are allowed either way.</source>
        <translation>Her iki yönde yüzde 15&apos;e izin verilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>15 digits. Empty: it is shown and not judged.</source>
        <translation>15 rakam. Boş: gösterilir, değerlendirilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 is the public client.</source>
        <translation>16, açık istemcidir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>16 octets in hex</source>
        <translation>16 oktet, onaltılık</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>2 octets</source>
        <translation>2 oktet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>2000 to 2099; two digits mean 20xx.</source>
        <translation>2000 – 2099; iki basamak 20xx demektir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>3 is a register, 1 data, 7 a profile, 8 the clock.</source>
        <translation>3 register, 1 veri, 7 profil, 8 saattir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>300 on the head; mostly 9600 on RS-485 and TCP.</source>
        <translation>Optik başlıkta 300; RS-485 ve TCP&apos;de çoğunlukla 9600.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits, given to meters that are registered from here.</source>
        <translation>32 onaltılık basamak, buradan kaydettirilen sayaçlara verilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>32 hex digits; empty: the one of the connection.</source>
        <translation>32 onaltılık basamak; boş: bağlantıdaki.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>4 octets</source>
        <translation>4 oktet</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>400 A for a DCBM 400, 600 A for a DCBM 600.</source>
        <translation>DCBM 400 için 400 A, DCBM 600 için 600 A.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>5000 switches the warning off in practice.</source>
        <translation>5000 uyarıyı pratikte kapatır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>7E1 by software</source>
        <translation>Yazılımla 7E1</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>8 octets in hex. Only sent where ciphering or the authentication needs it.</source>
        <translation>8 oktet, onaltılık. Yalnızca şifreleme veya kimlik doğrulama gerektirirse gönderilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>80 also with TLS: switching TLS on does not move the port.</source>
        <translation>TLS ile de 80: TLS&apos;yi açmak portu değiştirmez.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is connected with CONNECT_SUPPLY.</source>
        <translation>Bir DLMS sayacına CONNECT_SUPPLY ile enerji verilir.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>A DLMS meter is disconnected with DISCONNECT_SUPPLY.</source>
        <translation>Bir DLMS sayacının enerjisi DISCONNECT_SUPPLY ile kesilir.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>A battery storage that dials in to this computer.</source>
        <translation>Bu bilgisayara bağlanan bir batarya depolama sistemi.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>A dashboard of the reference head-end only listens. Where yours relays commands, switch on The head-end relays commands in the connection.</source>
        <translation>Referans merkez sistemin panosu yalnızca dinler. Sizinki komut iletiyorsa bağlantıda Merkez sistem komutları iletir seçeneğini açın.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A device is online once its token was right and a packet fitted the schema. A device that is in ERROR is inspected first; then send Reset error by hand and do the step again.</source>
        <translation>Belirteci doğru olunca ve bir paket şemaya uyunca cihaz çevrimiçi olur. ERROR durumundaki cihaz önce incelenir; sonra Hatayı sıfırla komutunu elle gönderip adımı yeniden yapın.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A few days at most: the text comes in one piece.</source>
        <translation>En çok birkaç gün: metin tek parça gelir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>A gateway that was accepted once stays registered for ever.</source>
        <translation>Bir kez kabul edilen ağ geçidi sürekli kayıtlı kalır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A head-end answers what is sent</source>
        <translation>Gönderileni bir merkez sistem yanıtlar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>A longer payload is sent in several frames.</source>
        <translation>Daha uzun veri yükü birkaç çerçevede gönderilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>A lower one helps a bad head or a long line.</source>
        <translation>Daha düşük hız kötü optik başlıkta veya uzun hatta yardımcı olur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A meter of three phases is asked phase by phase.</source>
        <translation>Üç fazlı sayaca faz faz sorulur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A new one each time, such as the job number: up to 20 letters, digits and - . _ ~</source>
        <translation>Her seferinde yeni, örneğin iş numarası: en çok 20 harf, rakam ve - . _ ~</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A page to read and print (*.html)</source>
        <translation>Okunup yazdırılacak sayfa (*.html)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A readout through the gateway: identity, energy, voltage, phase sequence and clock. Nothing is changed.</source>
        <translation>Ağ geçidi üzerinden readout: kimlik, enerji, gerilim, faz sırası ve saat. Hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>A rule as JSON with activated, offset, start and end; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>activated, offset, start ve end içeren JSON kuralı; boş: sayacın kendi ayarı olduğu gibi kalır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>A serial port, or socket://HOST:4059 for a meter on the network.</source>
        <translation>Bir seri port veya ağdaki sayaç için socket://HOST:4059.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. A run that fails or is stopped before ends it at once.</source>
        <translation>Şimdi imzalı bir işlem başlar. Daha kısaları sayacın belleğini yıprattığı için iki dakika sürer ve sonra akış tarafından bitirilir. Bundan önce başarısız olan veya durdurulan yürütme onu hemen bitirir.</translation>
    </message>
    <message>
        <source>A signed transaction begins now. It runs for two minutes, because shorter ones wear the meter&apos;s memory, and is then ended by the flow. Do not stop the run before that.</source>
        <translation type="vanished">Şimdi imzalı bir işlem başlar. Daha kısaları sayacın belleğini yıprattığı için iki dakika sürer ve sonra akış tarafından bitirilir. Yürütmeyi bundan önce durdurmayın.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>A signed transaction begins. Ones shorter than two minutes wear the meter&apos;s memory.</source>
        <translation>İmzalı bir işlem başlar. İki dakikadan kısa olanlar sayacın belleğini yıpratır.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A smaller workspace (*.mwk)</source>
        <translation>Daha küçük bir çalışma alanı (*.mwk)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>A table of the interactions (*.csv)</source>
        <translation>Etkileşim tablosu (*.csv)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text goes to the head-end; something has to come back.</source>
        <translation>Merkez sisteme bir metin gider; bir şey geri gelmelidir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A text of this program goes to the head-end over the mobile network.</source>
        <translation>Bu programın bir metni mobil ağ üzerinden merkez sisteme gider.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>A token holds steps of 0.1 kWh.</source>
        <translation>Bir jeton 0.1 kWh adımlarıyla kredi taşır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A transaction is running</source>
        <translation>Bir işlem sürüyor</translation>
    </message>
    <message>
        <source>A value out of bounds is a warning here, so that the transaction is ended in any case.</source>
        <translation type="vanished">Sınır dışı bir değer burada uyarıdır; böylece işlem her durumda bitirilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>A vehicle or load draws current during the test</source>
        <translation>Test sırasında bir araç veya yük akım çeker</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>ACCM</source>
        <translation>ACCM</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>API token</source>
        <translation>API belirteci</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>APN</source>
        <translation>APN</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>APN password</source>
        <translation>APN parolası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Accept its registration</source>
        <translation>Kaydolmasını kabul et</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point</source>
        <translation>Erişim noktası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point (APN)</source>
        <translation>Erişim noktası (APN)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Access point as the SIM card needs it</source>
        <translation>SIM kartın gerektirdiği erişim noktası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Acknowledge events</source>
        <translation>Olayları onayla</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Acknowledged in the form</source>
        <translation>Onaylandığı biçim</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Add directive</source>
        <translation>Yönerge sakla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add meter</source>
        <translation>Sayaç ekle</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Add the meter</source>
        <translation>Sayacı ekle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Add to {device}</source>
        <translation>Sayaç ekle: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Added behind the line, for AT+MPWD=; it is never shown.</source>
        <translation>AT+MPWD= için satırın arkasına eklenir; asla gösterilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address</source>
        <translation>Adres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Address length</source>
        <translation>Adres uzunluğu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of ChirpStack&apos;s REST interface, for example http://127.0.0.1:8090, or of ChirpStack itself, for example grpc://127.0.0.1:8080 or grpcs:// with TLS (needs the extra chirpstack).</source>
        <translation>ChirpStack REST arayüzünün adresi, örneğin http://127.0.0.1:8090, veya ChirpStack&apos;in kendisinin, örneğin grpc://127.0.0.1:8080 ya da TLS ile grpcs:// (chirpstack ekini gerektirir).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of the device-messaging service, for example http://127.0.0.1:3100.</source>
        <translation>Cihaz mesajlaşma hizmetinin adresi, örneğin http://127.0.0.1:3100.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the gateway</source>
        <translation>Ağ geçidinin adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Address of the head-end</source>
        <translation>Merkez sistemin adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of the image</source>
        <translation>İmajın adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of the service that makes tokens; empty: none are made here.</source>
        <translation>Jeton üreten hizmetin adresi; boş: burada jeton üretilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Address of the vendor&apos;s service, http(s)://host[:port][/path].</source>
        <translation>Üretici hizmetinin adresi, http(s)://host[:port][/path].</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Address of this computer for the server&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Sunucunun olayları için bu bilgisayarın adresi; 127.0.0.1: yalnızca buradan.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Address of this computer for the service&apos;s events; 127.0.0.1: only from here.</source>
        <translation>Hizmetin olayları için bu bilgisayarın adresi; 127.0.0.1: yalnızca buradan.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Address of this computer that gateways dial; 127.0.0.1: only from here. The link is in clear text and has no login.</source>
        <translation>Ağ geçitlerinin bağlandığı bu bilgisayarın adresi; 127.0.0.1: yalnızca buradan. Bağlantı düz metindir ve oturum açma içermez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Address of this computer that modules connect to; 127.0.0.1: only from here, 0.0.0.0: from everywhere. The link is in clear text and has no login.</source>
        <translation>Modüllerin bağlandığı bu bilgisayarın adresi; 127.0.0.1: yalnızca buradan, 0.0.0.0: her yerden. Bağlantı düz metindir ve oturum açma içermez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Address or name. When it is filled in, the meter keeps time by NTP instead of by this computer&apos;s clock.</source>
        <translation>Adres veya ad. Doldurulursa sayaç saatini bu bilgisayarın saati yerine NTP ile tutar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>After a time-out no other meter job is sent to the gateway for so long.</source>
        <translation>Zaman aşımından sonra bu süre boyunca ağ geçidine başka sayaç işi gönderilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>After that it is given up unsent.</source>
        <translation>Bundan sonra gönderilmeden vazgeçilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Algorithm</source>
        <translation>Algoritma</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>All three parts name their version; the authentication tags stand in the report.</source>
        <translation>Üç bölüm de sürümünü bildirir; kimlik doğrulama etiketleri raporda yer alır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L2) to U(L1)</source>
        <translation>U(L2) – U(L1) açısı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Angle U(L3) to U(L1)</source>
        <translation>U(L3) – U(L1) açısı</translation>
    </message>
    <message>
        <location filename="../../app/pipeline/flow_runs.py"/>
        <source>Answer</source>
        <translation>Yanıt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer AT lines</source>
        <translation>AT satırlarını yanıtla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer for 0x2803.</source>
        <translation>0x2803 için yanıt.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer from the table</source>
        <translation>Tablodan yanıtla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer to transparent payload</source>
        <translation>Saydam veri yüküne yanıt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answer with an error</source>
        <translation>Hatayla yanıtla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Answer within</source>
        <translation>Yanıt süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Answers</source>
        <translation>Yanıtlar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Answers once more</source>
        <translation>Yeniden yanıt verir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application</source>
        <translation>Uygulama</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Application firmware</source>
        <translation>Uygulama aygıt yazılımı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Application key</source>
        <translation>Uygulama anahtarı</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>April</source>
        <translation>Nisan</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As address(value).</source>
        <translation>adres(değer) biçiminde.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>As devices enter them, separated by commas; empty: the listening address.</source>
        <translation>Cihazların girdiği gibi, virgülle ayrılmış; boş: dinleme adresi.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As it will stand in the signed records, for example DE*ABC*E1. Empty: none.</source>
        <translation>İmzalı kayıtlarda yer alacağı gibi, örneğin DE*ABC*E1. Boş: yok.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As on the meter, up to 15 characters. Empty: no meter is added.</source>
        <translation>Sayacın üzerindeki gibi, en çok 15 karakter. Boş: sayaç eklenmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>As the SIM card needs it. Empty: it is shown and not judged.</source>
        <translation>SIM kartın gerektirdiği gibi. Boş: gösterilir, değerlendirilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the dialect does</source>
        <translation>Lehçedeki gibi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter names it, for example 1.8.0.</source>
        <translation>Sayacın adlandırdığı gibi, örneğin 1.8.0.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As the meter writes it, unit included.</source>
        <translation>Sayacın yazdığı gibi, birimi dahil.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the module: TCP payload in frames</source>
        <translation>Modül gibi: TCP veri yükü çerçevelerde</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>As the profile says</source>
        <translation>Profildeki gibi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>As usual: Turkish meters are read without, others with.</source>
        <translation>Olağan: Türk sayaçları parolasız, diğerleri parolayla okunur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Ask the meter who it is, and end.</source>
        <translation>Sayaca kim olduğunu sorar ve bitirir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ask to stop from</source>
        <translation>Durdurma isteme düzeyi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Ask who is there</source>
        <translation>Kimin olduğunu sor</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>At</source>
        <translation>AT satırı gönder</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Attempts</source>
        <translation>Denemeler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Attribute</source>
        <translation>Öznitelik</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>August</source>
        <translation>Ağustos</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication</source>
        <translation>Kimlik doğrulama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Authentication key</source>
        <translation>Kimlik doğrulama anahtarı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the application firmware</source>
        <translation>Uygulama aygıt yazılımının kimlik doğrulama etiketi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Authentication tag of the legal firmware</source>
        <translation>Yasal aygıt yazılımının kimlik doğrulama etiketi</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Aviora gateway</source>
        <translation>Aviora ağ geçidi</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Aviora gateway (ProtocolZD)</source>
        <translation>Aviora ağ geçidi (ProtocolZD)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>B1: battery meter</source>
        <translation>B1: pilli sayaç</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Back to AUTO</source>
        <translation>AUTO&apos;ya dönüş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery capacity</source>
        <translation>Batarya kapasitesi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery charge power</source>
        <translation>Batarya şarj gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery current</source>
        <translation>Batarya akımı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery discharge power</source>
        <translation>Batarya deşarj gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery power</source>
        <translation>Batarya gücü</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Battery systems that report once a second: they dial in here, or are watched through their head-end.</source>
        <translation>Saniyede bir bildiren batarya sistemleri: buraya bağlanır veya merkez sistemleri üzerinden izlenir.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery temperature</source>
        <translation>Batarya sıcaklığı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Battery voltage</source>
        <translation>Batarya gerilimi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before power flows</source>
        <translation>Güç akmadan önce</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Before the supply is switched</source>
        <translation>Enerji açılıp kapatılmadan önce</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Begin</source>
        <translation>Başlangıç</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: day</source>
        <translation>Başlangıç: gün</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: hour</source>
        <translation>Başlangıç: saat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: month</source>
        <translation>Başlangıç: ay</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Begin: which</source>
        <translation>Başlangıç: kaçıncı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Bench hub: the device dials in here</source>
        <translation>Tezgâh hub&apos;ı: cihaz buraya bağlanır</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Billable</source>
        <translation>Faturalanabilir</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Block check</source>
        <translation>Blok denetimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Block cipher key</source>
        <translation>Blok şifre anahtarı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Body</source>
        <translation>Gövde</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Both forms of the public key agree</source>
        <translation>Açık anahtarın iki biçimi uyuşuyor</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Brand</source>
        <translation>Marka</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Break</source>
        <translation>Sonlandırma</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Burst test</source>
        <translation>Art arda çerçeve testi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>By the meter: Turkish where it names its generation, else VDEW, else standard.</source>
        <translation>Sayaca göre: neslini bildiriyorsa Türk, yoksa VDEW, o da yoksa standart.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>C2 EVENT</source>
        <translation>C2 EVENT</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN HTTP service v1</source>
        <translation>CALIN HTTP hizmeti v1</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN HTTP service v2</source>
        <translation>CALIN HTTP hizmeti v2</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters over LoRaWAN</source>
        <translation>LoRaWAN üzerinden CALIN sayaçları</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v1</source>
        <translation>CALIN sayaçları, HTTP hizmeti v1</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>CALIN meters, HTTP service v2</source>
        <translation>CALIN sayaçları, HTTP hizmeti v2</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>CALIN over LoRaWAN</source>
        <translation>LoRaWAN üzerinden CALIN</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>CALIN prepaid meter</source>
        <translation>CALIN ön ödemeli sayaç</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 içinde READ_TIME yok; üretici yalnızca tarihi sunar.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>CALIN_V1 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V1 içinde SET_TIME yok; üretici yalnızca tarihi sunar.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no READ_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 içinde READ_TIME yok; üretici yalnızca tarihi sunar.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>CALIN_V2 has no SET_TIME; the vendor offers the date only.</source>
        <translation>CALIN_V2 içinde SET_TIME yok; üretici yalnızca tarihi sunar.</translation>
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
        <translation>Kablo</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call method</source>
        <translation>Metot çağır</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Call on {device}</source>
        <translation>Çağır: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Carrier id</source>
        <translation>Taşıyıcı kimliği</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Certificate of this hub</source>
        <translation>Bu hub&apos;ın sertifikası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel</source>
        <translation>Kanal</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 21, in frames of at most the set size.</source>
        <translation>Kanal 21, en çok ayarlanan boyutta çerçevelerle.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22.</source>
        <translation>Kanal 22.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 22. 0x8003, 0x8005, 0x8007 and 0x3007 to 0x300A take raw values, the others typed ones.</source>
        <translation>Kanal 22. 0x8003, 0x8005, 0x8007 ve 0x3007 – 0x300A ham değer, diğerleri türlü değer alır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 23. Expect no answer from the stock firmware.</source>
        <translation>Kanal 23. Fabrika yazılımından yanıt beklemeyin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Channel 24. Expect no acknowledgement from the stock firmware.</source>
        <translation>Kanal 24. Fabrika yazılımından onay beklemeyin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Characters</source>
        <translation>Karakterler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Characters that are escaped besides 7E and 7D, profile rfc1662; 8 hex digits, FFFFFFFF escapes all control characters.</source>
        <translation>rfc1662 profilinde 7E ve 7D&apos;nin yanında kaçışlanan karakterler; 8 onaltılık basamak, FFFFFFFF tüm denetim karakterlerini kaçışlar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Charge</source>
        <translation>Şarj</translation>
    </message>
    <message>
        <source>Charging was confirmed, as this is</source>
        <translation type="vanished">Şarj, bunun gibi doğrulandı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Checksum of the sensor firmware</source>
        <translation>Sensör aygıt yazılımının sağlama toplamı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>ChirpStack sends it as header Authorization: Bearer, or X-Meterwright-Token.</source>
        <translation>ChirpStack bunu Authorization: Bearer veya X-Meterwright-Token başlığıyla gönderir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering</source>
        <translation>Şifreleme</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Ciphering goes on from the last counter used here; raise it when another program used the key.</source>
        <translation>Şifreleme burada kullanılan son sayaçtan sürer; anahtarı başka bir program kullandıysa artırın.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Class</source>
        <translation>Sınıf</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear credit</source>
        <translation>Krediyi sıfırla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear tamper</source>
        <translation>Müdahaleyi sıfırla</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clear tamper, clear credit, set power limit, read voltage, read power, first credit: one after the other. When one fails, the rest is not begun; doing the step again makes new tokens.</source>
        <translation>Müdahaleyi sıfırla, krediyi sıfırla, güç sınırını ayarla, gerilimi oku, gücü oku, ilk kredi: birbiri ardına. Biri başarısız olursa gerisine başlanmaz; adım yeniden yapılırsa yeni jetonlar üretilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the credit of {device}</source>
        <translation>Krediyi sıfırla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Clear the tamper state of {device}</source>
        <translation>Müdahaleyi sıfırla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Cleared below the level by</source>
        <translation>Düzeyin bu kadar altında silinir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Client address</source>
        <translation>İstemci adresi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock ahead of this computer&apos;s</source>
        <translation>Saat bu bilgisayarınkinden ileri</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock before it is set</source>
        <translation>Ayarlanmadan önceki saat</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock is synchronised</source>
        <translation>Saat eşitlendi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Clock of the meter</source>
        <translation>Sayacın saati</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Clocks may differ by</source>
        <translation>Saat farkı sınırı</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Close in order</source>
        <translation>Düzgün kapat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close in order (FIN)</source>
        <translation>Düzenli kapat (FIN)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Close {device}</source>
        <translation>Bağlantıyı kapat: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Closes with a reset, which the stock firmware notices.</source>
        <translation>Sıfırlamayla (RST) kapatır; fabrika yazılımı bunu fark eder.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 1</source>
        <translation>Yük profili 1 sütunları</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 2</source>
        <translation>Yük profili 2 sütunları</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Columns of load profile 3</source>
        <translation>Yük profili 3 sütunları</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Columns, period, and how many entries there are.</source>
        <translation>Sütunlar, dönem ve kaç girdi olduğu.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command must show its effect within</source>
        <translation>Komut etkisini gösterme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Command octet</source>
        <translation>Komut okteti</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Command waits for an offline device</source>
        <translation>Komutun çevrimdışı cihazı bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Commissioning</source>
        <translation>Devreye alma</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Company</source>
        <translation>Şirket</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Confirmed by</source>
        <translation>Doğrulayan</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: it leaves ERROR and shows no error flag.</source>
        <translation>Cihazın telemetrisiyle doğrulanır: ERROR durumundan çıkar ve hata bayrağı göstermez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Confirmed by the device&apos;s telemetry: the protocol has no answer to a command.</source>
        <translation>Cihazın telemetrisiyle doğrulanır: protokolde komuta yanıt yoktur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect supply</source>
        <translation>Enerji ver</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Connect the supply</source>
        <translation>Enerji ver</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Connect {device}</source>
        <translation>Enerji ver: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Consumption</source>
        <translation>Tüketim</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Counted from 1, the oldest on most meters.</source>
        <translation>1&apos;den sayılır, çoğu sayaçta en eskisi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Credit</source>
        <translation>Kredi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit after</source>
        <translation>Sonraki kredi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Credit before</source>
        <translation>Önceki kredi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent export</source>
        <translation>Kümülatif maksimum görünür veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum apparent import</source>
        <translation>Kümülatif maksimum görünür çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum export</source>
        <translation>Kümülatif maksimum veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum import</source>
        <translation>Kümülatif maksimum çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum net</source>
        <translation>Kümülatif maksimum net</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive export</source>
        <translation>Kümülatif maksimum reaktif veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Cumulated maximum reactive import</source>
        <translation>Kümülatif maksimum reaktif çekiş</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Current</source>
        <translation>Akım</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L1</source>
        <translation>Akım L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L2</source>
        <translation>Akım L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current L3</source>
        <translation>Akım L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Current N</source>
        <translation>Akım N</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Customer</source>
        <translation>Müşteri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>D: the meter sends by itself</source>
        <translation>D: sayaç kendiliğinden gönderir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC current</source>
        <translation>DC akım</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DC energy meter of charging stations over HTTP or HTTPS, with signed OCMF records.</source>
        <translation>Şarj istasyonlarının HTTP veya HTTPS üzerinden DC enerji sayacı, imzalı OCMF kayıtlarıyla.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>DC meter of a charging station, on the network.</source>
        <translation>Şarj istasyonunun DC sayacı, ağda.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>DC voltage</source>
        <translation>DC gerilim</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>DENIED</source>
        <translation>DENIED</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>DLMS/COSEM meter</source>
        <translation>DLMS/COSEM sayacı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Dashboard: through the head-end</source>
        <translation>Pano: merkez sistem üzerinden</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Data</source>
        <translation>Veri</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Date</source>
        <translation>Tarih</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Day</source>
        <translation>Gün</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Day of the week</source>
        <translation>Haftanın günü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Daylight saving of the meter</source>
        <translation>Sayacın yaz saati</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf after start</source>
        <translation>Başlangıçta sağır</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Deaf for the time that is set, then the serial number is read, then idle.</source>
        <translation>Ayarlanan süre boyunca sağır, sonra seri numarası okunur, sonra boşta.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>December</source>
        <translation>Aralık</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete directive</source>
        <translation>Yönergeyi sil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Delete on {device}</source>
        <translation>Yönergeyi sil: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver a token</source>
        <translation>Jeton ilet</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Deliver preexisting token</source>
        <translation>Var olan jetonu ilet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Deliver to {device}</source>
        <translation>Jeton ilet: {device}</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Demand period</source>
        <translation>Demant periyodu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Detect</source>
        <translation>Algıla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Deviation of the meter&apos;s clock</source>
        <translation>Sayaç saatinin sapması</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Device address</source>
        <translation>Cihaz adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Device below a server: the digits of its login (ICCID), or the address it connects from, with or without :port.</source>
        <translation>Bir sunucunun altındaki cihaz: oturum açma rakamları (ICCID) veya bağlandığı adres, :port ile veya onsuz.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Device id</source>
        <translation>Cihaz kimliği</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Device profile</source>
        <translation>Cihaz profili</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Dialect</source>
        <translation>Lehçe</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Did a lamp or tester behind the meter go out and come on again?</source>
        <translation>Sayacın arkasındaki lamba veya test cihazı sönüp yeniden yandı mı?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Directive</source>
        <translation>Yönerge</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Directives</source>
        <translation>Yönergeler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Discharge</source>
        <translation>Deşarj</translation>
    </message>
    <message>
        <source>Discharging was confirmed, as this is</source>
        <translation type="vanished">Deşarj, bunun gibi doğrulandı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Disconnect control</source>
        <translation>Kesme denetimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect supply</source>
        <translation>Enerjiyi kes</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Disconnect the supply</source>
        <translation>Enerjiyi kes</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Disconnect {device}</source>
        <translation>Enerjiyi kes: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Display and seals</source>
        <translation>Ekran ve mühürler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Do not answer</source>
        <translation>Yanıtlama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Do not use it</source>
        <translation>Kullanma</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does a phase-sequence indicator at the meter&apos;s terminals show a clockwise field?</source>
        <translation>Sayacın uçlarındaki faz sırası göstergesi saat yönünde bir alan gösteriyor mu?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the display show no error, and are terminal cover and seals in place?</source>
        <translation>Ekranda hata yok mu, klemens kapağı ve mühürler yerinde mi?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the label read {device.serial}, are the gateway and its antenna fixed, and is the meter&apos;s line connected?</source>
        <translation>Etikette {device.serial} yazıyor mu, ağ geçidi ve anteni sabitlenmiş mi, sayacın hattı bağlı mı?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the meter show its credit and no alarm, and does a lamp behind it burn?</source>
        <translation>Sayaç kredisini gösteriyor ve alarm göstermiyor mu, arkasındaki bir lamba yanıyor mu?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate of the meter read {device.serial}, are its seals whole and its cables as in the drawing?</source>
        <translation>Sayacın etiketinde {device.serial} yazıyor mu, mühürleri sağlam mı, kabloları çizimdeki gibi mi?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Does the nameplate read {device.serial}, is the meter wired as the connection says, and is its cover closed?</source>
        <translation>Etikette {device.serial} yazıyor mu, sayaç bağlantıda belirtildiği gibi bağlanmış mı, kapağı kapalı mı?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Doubt about the certificate</source>
        <translation>Sertifikayla ilgili kuşku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop module</source>
        <translation>Modülü düşür</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Drop {device}</source>
        <translation>Bağlantıyı düşür: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>E: its readable part, as C</source>
        <translation>E: okunabilir bölümü, C gibi</translation>
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
        <translation>EMH sayaçları: sayaç adresiyle birlikte 1 – 4.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS device behind a head-end</source>
        <translation>Merkez sistem arkasındaki EMS cihazı</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>EMS edge device</source>
        <translation>EMS uç cihazı</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>EMS edge device (WebSocket)</source>
        <translation>EMS uç cihazı (WebSocket)</translation>
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
        <translation>EVSE kimliği</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Earliest end</source>
        <translation>En erken bitiş</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Echo</source>
        <translation>Yankı</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Either end of the module&apos;s UART.</source>
        <translation>Modülün UART&apos;ının iki ucundan biri.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Empty: NTP is switched off.</source>
        <translation>Boş: NTP kapatılır.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: everything, or by entries.</source>
        <translation>Boş: tümü veya girdilere göre.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: from the beginning. The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>Boş: baştan. Sayacın saatinin bu bilgisayarın yerel saatini gösterdiği varsayılır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Empty: no MQTT; events then come as webhooks.</source>
        <translation>Boş: MQTT yok; olaylar webhook olarak gelir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Empty: the address from which it dials in, or the one it tells.</source>
        <translation>Boş: bağlandığı adres veya bildirdiği adres.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: this computer&apos;s time at the moment of sending.</source>
        <translation>Boş: gönderme anında bu bilgisayarın saati.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: to the end.</source>
        <translation>Boş: sona kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: up to now.</source>
        <translation>Boş: şimdiye kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Empty: whichever meter is there. Needed where several share a line. Turkish meters: manufacturer and serial number.</source>
        <translation>Boş: hangi sayaç varsa. Birden çok sayacın paylaştığı hatta gerekir. Türk sayaçları: üretici ve seri numarası.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Empty: without parameter.</source>
        <translation>Boş: parametresiz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Encrypt (wss)</source>
        <translation>Şifrele (wss)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Encrypted connection</source>
        <translation>Şifreli bağlantı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End</source>
        <translation>Bitiş</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>End the test transaction</source>
        <translation>Test işlemini bitir</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: day</source>
        <translation>Bitiş: gün</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: hour</source>
        <translation>Bitiş: saat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: month</source>
        <translation>Bitiş: ay</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>End: which</source>
        <translation>Bitiş: kaçıncı</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Ends the transaction and fetches its signed record.</source>
        <translation>İşlemi bitirir ve imzalı kaydını alır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Energy</source>
        <translation>Enerji</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute</source>
        <translation>Mutlak enerji</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L1</source>
        <translation>Mutlak enerji L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L2</source>
        <translation>Mutlak enerji L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy absolute L3</source>
        <translation>Mutlak enerji L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export</source>
        <translation>Görünür enerji veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L1</source>
        <translation>Görünür enerji veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L2</source>
        <translation>Görünür enerji veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent export L3</source>
        <translation>Görünür enerji veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import</source>
        <translation>Görünür enerji çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L1</source>
        <translation>Görünür enerji çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L2</source>
        <translation>Görünür enerji çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy apparent import L3</source>
        <translation>Görünür enerji çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Energy cost</source>
        <translation>Enerji maliyeti</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy export</source>
        <translation>Enerji veriş</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy export (2.8.0)</source>
        <translation>Enerji veriş (2.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L1</source>
        <translation>Enerji veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L2</source>
        <translation>Enerji veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy export L3</source>
        <translation>Enerji veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Energy import</source>
        <translation>Enerji çekiş</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy import (1.8.0)</source>
        <translation>Enerji çekiş (1.8.0)</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L1</source>
        <translation>Enerji çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L2</source>
        <translation>Enerji çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy import L3</source>
        <translation>Enerji çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net</source>
        <translation>Net enerji</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L1</source>
        <translation>Net enerji L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L2</source>
        <translation>Net enerji L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy net L3</source>
        <translation>Net enerji L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy of the test</source>
        <translation>Testin enerjisi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export</source>
        <translation>Reaktif enerji veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L1</source>
        <translation>Reaktif enerji veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L2</source>
        <translation>Reaktif enerji veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive export L3</source>
        <translation>Reaktif enerji veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import</source>
        <translation>Reaktif enerji çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L1</source>
        <translation>Reaktif enerji çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L2</source>
        <translation>Reaktif enerji çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive import L3</source>
        <translation>Reaktif enerji çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I</source>
        <translation>Reaktif enerji kadran I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L1</source>
        <translation>Reaktif enerji kadran I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L2</source>
        <translation>Reaktif enerji kadran I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant I L3</source>
        <translation>Reaktif enerji kadran I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II</source>
        <translation>Reaktif enerji kadran II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L1</source>
        <translation>Reaktif enerji kadran II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L2</source>
        <translation>Reaktif enerji kadran II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant II L3</source>
        <translation>Reaktif enerji kadran II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III</source>
        <translation>Reaktif enerji kadran III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L1</source>
        <translation>Reaktif enerji kadran III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L2</source>
        <translation>Reaktif enerji kadran III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant III L3</source>
        <translation>Reaktif enerji kadran III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV</source>
        <translation>Reaktif enerji kadran IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L1</source>
        <translation>Reaktif enerji kadran IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L2</source>
        <translation>Reaktif enerji kadran IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Energy reactive quadrant IV L3</source>
        <translation>Reaktif enerji kadran IV L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Energy under load</source>
        <translation>Yük altındaki enerji</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Entry in the meter&apos;s table of loss compensation.</source>
        <translation>Sayacın kayıp telafisi tablosundaki girdi.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flag</source>
        <translation>Hata bayrağı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Error flags</source>
        <translation>Hata bayrakları</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Error status</source>
        <translation>Hata durumu</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Event log</source>
        <translation>Olay günlüğü</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Every register of the object list, which is read first when it is not known.</source>
        <translation>Nesne listesindeki her register; liste bilinmiyorsa önce okunur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute</source>
        <translation>Yürüt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Execute on {device}</source>
        <translation>Yürüt: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Export register</source>
        <translation>Veriş registeri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>FCS octets swapped</source>
        <translation>FCS oktetleri yer değiştirmiş</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fatal error</source>
        <translation>Ağır hata</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Fault</source>
        <translation>Arıza</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>February</source>
        <translation>Şubat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>File</source>
        <translation>Dosya</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fingerprint</source>
        <translation>Parmak izi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Fingerprint (SHA-256)</source>
        <translation>Parmak izi (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware</source>
        <translation>Aygıt yazılımı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware as ordered</source>
        <translation>Sipariş edilen aygıt yazılımı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Firmware of the sensor unit</source>
        <translation>Sensör biriminin aygıt yazılımı</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First</source>
        <translation>Birinci</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>First baud rate</source>
        <translation>Başlangıç baud hızı</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>First entry</source>
        <translation>İlk girdi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First line</source>
        <translation>İlk satır</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>First look at a task</source>
        <translation>Göreve ilk bakış</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>First object</source>
        <translation>İlk nesne</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>First port</source>
        <translation>Birinci port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server</source>
        <translation>Birinci zaman sunucusu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>First time server, port</source>
        <translation>Birinci zaman sunucusu, port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Fixed baud rate</source>
        <translation>Sabit baud hızı</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Flags, firmware, keys and the meter&apos;s clock.</source>
        <translation>Bayraklar, aygıt yazılımı, anahtarlar ve sayacın saati.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For a peer whose FCS order is not that of its profile.</source>
        <translation>FCS sırası profilininkinden farklı olan karşı taraf için.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>For a server of one&apos;s own with TLS; empty: the usual authorities. Also used for MQTT.</source>
        <translation>TLS kullanan kendi sunucunuz için; boş: olağan yetkililer. MQTT için de kullanılır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>For a service behind TLS with a certificate of its own; empty: the usual authorities.</source>
        <translation>Kendi sertifikalı TLS arkasındaki hizmet için; boş: olağan yetkililer.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>For a service with a certificate of its own; empty: the usual authorities.</source>
        <translation>Kendi sertifikası olan hizmet için; boş: olağan yetkililer.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x2100; the low octet is the link octet.</source>
        <translation>Örneğin 0x2100; düşük oktet bağlantı oktetidir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example 0x8005.</source>
        <translation>Örneğin 0x8005.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 1-0:1.8.0*255.</source>
        <translation>Örneğin 1-0:1.8.0*255.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For example 9600 8N1. Serial ports only.</source>
        <translation>Örneğin 9600 8N1. Yalnızca seri portlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>For example AT+CSQ?; CR LF is added. Only modules of the first generation answer.</source>
        <translation>Örneğin AT+CSQ?; CR LF eklenir. Yalnızca birinci nesil modüller yanıt verir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>For example a card number. With the transaction id it is cut to 37 bytes.</source>
        <translation>Örneğin bir kart numarası. İşlem kimliğiyle birlikte 37 bayta kesilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>For mode E on ports that only do 8N1.</source>
        <translation>Yalnızca 8N1 yapan portlarda mod E için.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>For the first octet of an answer.</source>
        <translation>Yanıtın ilk okteti için.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Fourth</source>
        <translation>Dördüncü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Frame</source>
        <translation>Çerçeve</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frame profile</source>
        <translation>Çerçeve profili</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Frames</source>
        <translation>Çerçeveler</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>Frames for Wireshark (*.pcapng)</source>
        <translation>Wireshark için çerçeveler (*.pcapng)</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Frames on a UART between meter and module, raw TCP behind it; plays each side, or stands between.</source>
        <translation>Sayaç ile modül arasındaki UART&apos;ta çerçeveler, arkasında ham TCP; iki tarafı da canlandırır veya araya girer.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Framing</source>
        <translation>Çerçeveleme</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Frequency</source>
        <translation>Frekans</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Friday</source>
        <translation>Cuma</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From</source>
        <translation>Başlangıç</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the acknowledgement to the result.</source>
        <translation>Onaydan sonuca kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>From the frame to its answer.</source>
        <translation>Çerçeveden yanıtına kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>From the gateway&apos;s acknowledgement to the result.</source>
        <translation>Ağ geçidinin onayından sonuca kadar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>From this computer&apos;s clock, or by the time servers of the connection. Starting a transaction sets it as well.</source>
        <translation>Bu bilgisayarın saatinden veya bağlantının zaman sunucularıyla. İşlem başlatmak da saati ayarlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1 form</source>
        <translation>G1 biçimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G1: its predecessor</source>
        <translation>G1: önceli</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2 form</source>
        <translation>G2 biçimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>G2: published since 2023</source>
        <translation>G2: 2023&apos;ten beri yayımlanan</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>GMAC (HLS)</source>
        <translation>GMAC (HLS)</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>Gateways that dial in over TCP and read meters on serial lines; nothing is encrypted.</source>
        <translation>TCP üzerinden bağlanan ve seri hatlardaki sayaçları okuyan ağ geçitleri; hiçbir şey şifreli değildir.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Geographic code</source>
        <translation>Coğrafi kod</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get meter parameter</source>
        <translation>Sayaç parametresini oku</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Get parameter</source>
        <translation>Modül parametresini oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Give the password</source>
        <translation>Parola verilmesi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid apparent power</source>
        <translation>Şebeke görünür gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid current</source>
        <translation>Şebeke akımı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid demand</source>
        <translation>Şebeke demantı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy export</source>
        <translation>Şebekeye enerji veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid energy import</source>
        <translation>Şebekeden enerji çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid frequency</source>
        <translation>Şebeke frekansı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid peak demand</source>
        <translation>Şebeke en yüksek demantı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power</source>
        <translation>Şebeke gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid power factor</source>
        <translation>Şebeke güç faktörü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid reactive power</source>
        <translation>Şebeke reaktif gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid total energy</source>
        <translation>Şebeke toplam enerjisi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Grid voltage</source>
        <translation>Şebeke gerilimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC (serial)</source>
        <translation>HDLC (seri)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC begins</source>
        <translation>HDLC başlangıcı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only: frames are numbered.</source>
        <translation>Yalnızca HDLC: çerçeveler numaralıdır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>HDLC only; the meter may agree to less.</source>
        <translation>Yalnızca HDLC; sayaç daha azını kabul edebilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handed over</source>
        <translation>Teslim edildi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake and telemetry</source>
        <translation>El sıkışma ve telemetri</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Handshake, telemetry, and a walk through idle, charging and discharging within safe limits, then back to AUTO. The device has to be connected. While it is held in a manual mode, keep this program open: a minute after the connection is lost the device goes back to AUTO by itself.</source>
        <translation>El sıkışma, telemetri ve güvenli sınırlar içinde boşta, şarj ve deşarj turu, sonra AUTO&apos;ya dönüş. Cihaz bağlı olmalıdır. Elle modda tutulurken bu programı açık tutun: bağlantı koptuktan bir dakika sonra cihaz kendiliğinden AUTO&apos;ya döner.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Head-end</source>
        <translation>Merkez sistem</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Head-end for fleets</source>
        <translation>Filolar için merkez sistem</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Head-end: device messaging</source>
        <translation>Merkez sistem: cihaz mesajlaşması</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Heartbeat</source>
        <translation>Yaşam sinyali</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH.</source>
        <translation>Onaltılık basamaklar ya da text: ve \r, \n ve \xHH içeren metin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Hex digits, or text: and the text with \r, \n and \xHH. Sent as they are; empty: the frame is built from the fields below.</source>
        <translation>Onaltılık basamaklar ya da text: ve \r, \n ve \xHH içeren metin. Olduğu gibi gönderilir; boş: çerçeve aşağıdaki alanlardan oluşturulur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Hex, seven bits each; parity is added as the connection says.</source>
        <translation>Onaltılık, her biri yedi bit; eşlik bağlantıda belirtildiği gibi eklenir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>High octet first</source>
        <translation>Yüksek oktet önce</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Highest baud rate</source>
        <translation>En yüksek baud hızı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest credit afterwards</source>
        <translation>Sonrasında en yüksek kredi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest current</source>
        <translation>En yüksek akım</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest power right after installation</source>
        <translation>Kurulumdan hemen sonraki en yüksek güç</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest temperature of the sensors</source>
        <translation>Sensörlerin en yüksek sıcaklığı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Highest voltage</source>
        <translation>En yüksek gerilim</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Hour</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>ICCID</source>
        <translation>ICCID</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>IEC 62056-21 meter</source>
        <translation>IEC 62056-21 sayacı</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>IEC 62056-21 or DLMS/COSEM. Rate, format and protocol are found by trying.</source>
        <translation>IEC 62056-21 veya DLMS/COSEM. Hız, biçim ve protokol denenerek bulunur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>IEC 62056-21 readout</source>
        <translation>IEC 62056-21 readout</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI</source>
        <translation>IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>IMEI on the module&apos;s label</source>
        <translation>Modülün etiketindeki IMEI</translation>
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
        <translation>IP adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>IP address or name of the meter. Meters leave the factory with 192.168.1.2.</source>
        <translation>Sayacın IP adresi veya adı. Sayaçlar fabrikadan 192.168.1.2 ile çıkar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4 address of this computer that the gateway reaches; empty: the one that leads to it.</source>
        <translation>Bu bilgisayarın ağ geçidinin ulaştığı IPv4 adresi; boş: ona giden adres.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>IPv4; the gateway knows no names.</source>
        <translation>IPv4; ağ geçidi adları bilmez.</translation>
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
        <translation>Ulaşılmasını sağlayan ağaç düğümünün kimliği. Boş: içinde bulunduğu düğüm</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Id of the test transaction</source>
        <translation>Test işleminin kimliği</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identification</source>
        <translation>Tanıtım</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification data</source>
        <translation>Tanıtım verisi</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Identification type</source>
        <translation>Tanıtım türü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Identification type to enforce</source>
        <translation>Zorunlu kılınacak tanıtım türü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identify by asking</source>
        <translation>Sorarak tanı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity</source>
        <translation>Kimlik</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registers</source>
        <translation>Kimlik ve registerler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and registration, its log, its directives, and one meter in its index. Run the flow of the meter after it. Nothing is changed unless adding the meter is allowed.</source>
        <translation>Kimlik ve kaydolma, günlüğü, yönergeleri ve dizininde bir sayaç. Sayacın akışını bundan sonra yürütün. Sayaç eklemeye izin verilmedikçe hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and state</source>
        <translation>Kimlik ve durum</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity and stored directives</source>
        <translation>Kimlik ve saklanan yönergeler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity of the module</source>
        <translation>Modülün kimliği</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Identity or address:port of the module as in the table; empty: the only one that is connected.</source>
        <translation>Modülün tablodaki gibi kimliği veya adres:port değeri; boş: bağlı olan tek modül.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, firmware, status, clock, TLS, live values, one signed test transaction and its OCMF record. It takes two and a half minutes, under load one more. The meter keeps the record of the test transaction for good; nothing else of it is changed but its clock.</source>
        <translation>Kimlik, aygıt yazılımı, durum, saat, TLS, canlı değerler, bir imzalı test işlemi ve OCMF kaydı. İki buçuk dakika, yük altında bir dakika daha sürer. Sayaç test işleminin kaydını kalıcı olarak saklar; saatinden başka hiçbir şeyi değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2), in any form.</source>
        <translation>Kimlik, readout, besleme gerilimleri, faz sırası ve saat. Saati ayarlamaya izin verilmedikçe hiçbir şey yazılmaz. Anlık değerler OBIS kodlarıyla (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2) her biçimde aranır.</translation>
    </message>
    <message>
        <source>Identity, readout, supply voltages, phase sequence and clock. Nothing is written unless setting the clock is allowed. Instantaneous values are looked for under their short OBIS codes (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</source>
        <translation type="vanished">Kimlik, readout, besleme gerilimleri, faz sırası ve saat. Saati ayarlamaya izin verilmedikçe hiçbir şey yazılmaz. Anlık değerler kısa OBIS kodlarıyla aranır (32.7.0, 52.7.0, 72.7.0, 81.7.1, 81.7.2).</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity, registers, supply voltages, phase sequence, clock and, where it is allowed, the disconnector. Nothing is written unless setting the clock or switching the supply is allowed.</source>
        <translation>Kimlik, registerler, besleme gerilimleri, faz sırası, saat ve izin verildiyse kesme rölesi. Saati ayarlamaya veya enerjiyi açıp kapatmaya izin verilmedikçe hiçbir şey yazılmaz.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: IMEI</source>
        <translation>Kimlik: IMEI</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Identity: label</source>
        <translation>Kimlik: etiket</translation>
    </message>
    <message>
        <source>Idle was confirmed, as this is</source>
        <translation type="vanished">Boşta, bunun gibi doğrulandı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Ignored without the first one.</source>
        <translation>Birincisi yoksa yok sayılır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Import register</source>
        <translation>Çekiş registeri</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In UTC, for example T01:00Z.</source>
        <translation>UTC olarak, örneğin T01:00Z.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>In mode D nothing is sent to the meter; read it out, which waits for its next message.</source>
        <translation>Mod D&apos;de sayaca hiçbir şey gönderilmez; sonraki iletisini bekleyen readout alın.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>In the readout the meter&apos;s clock showed {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value}; by this computer it is {now} now. Is the meter&apos;s clock right?</source>
        <translation>Readout içinde sayacın saati {steps.readout.result.rows[obis=0.9.2].value} {steps.readout.result.rows[obis=0.9.1].value} gösterdi; bu bilgisayara göre şimdi {now}. Sayacın saati doğru mu?</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>In use</source>
        <translation>Kullanımda</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Information of a frame</source>
        <translation>Çerçevenin bilgi alanı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Inspect the device first: it switches its output on again as soon as it is asked for power.</source>
        <translation>Önce cihazı inceleyin: güç istenir istenmez çıkışını yeniden açar.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC current</source>
        <translation>Evirici AC akımı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC power</source>
        <translation>Evirici AC gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter AC voltage</source>
        <translation>Evirici AC gerilimi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC current</source>
        <translation>Evirici DC akımı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC power</source>
        <translation>Evirici DC gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter DC voltage</source>
        <translation>Evirici DC gerilimi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter efficiency</source>
        <translation>Evirici verimi</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Inverter energy generated</source>
        <translation>Eviricinin ürettiği enerji</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Invocation counter, least</source>
        <translation>Çağrı sayacı, en az</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the customer told, and is nobody working on the installation behind {device.name}?</source>
        <translation>Müşteriye haber verildi mi ve {device.name} arkasındaki tesisatta kimse çalışmıyor mu?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Is the module&apos;s cable back on its meter, and does the module&apos;s lamp show a connection?</source>
        <translation>Modülün kablosu yeniden sayacında mı ve modülün lambası bağlantı gösteriyor mu?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>It answers once more.</source>
        <translation>Bir kez daha yanıt verir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>It decides the tariff and when it is switched.</source>
        <translation>Tarifeyi ve ne zaman açılıp kapatılacağını belirler.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>It decides which commands there are. One that is not in the list may be typed.</source>
        <translation>Hangi komutların bulunduğunu belirler. Listede olmayan yazılabilir.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>It dials in to this computer.</source>
        <translation>Bu bilgisayara bağlanır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Its gateway or concentrator</source>
        <translation>Ağ geçidi veya konsantratörü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its log</source>
        <translation>Günlüğü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Its register has not gone backwards.</source>
        <translation>Registeri geriye gitmedi.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>JOIN_NETWORK is never sent; it is a report of LoRaWAN meters.</source>
        <translation>JOIN_NETWORK hiç gönderilmez; LoRaWAN sayaçlarının bir bildirimidir.</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/share.py"/>
        <source>JSON Lines, everything (*.jsonl)</source>
        <translation>JSON Lines, her şey (*.jsonl)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>January</source>
        <translation>Ocak</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Join network</source>
        <translation>Ağa katıl</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>July</source>
        <translation>Temmuz</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>June</source>
        <translation>Haziran</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>KEY_CODE</source>
        <translation>KEY_CODE</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Key</source>
        <translation>Anahtar</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>LEM DCBM 400/600</source>
        <translation>LEM DCBM 400/600</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>LEM DCBM DC meter</source>
        <translation>LEM DCBM DC sayacı</translation>
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
        <translation>Sonuncu</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent export</source>
        <translation>Son ortalama görünür veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average apparent import</source>
        <translation>Son ortalama görünür çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average export</source>
        <translation>Son ortalama veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average import</source>
        <translation>Son ortalama çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average net</source>
        <translation>Son ortalama net</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive export</source>
        <translation>Son ortalama reaktif veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Last average reactive import</source>
        <translation>Son ortalama reaktif çekiş</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Last entry</source>
        <translation>Son girdi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left as it was found</source>
        <translation>Bulunduğu gibi bırakıldı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Left ready</source>
        <translation>Hazır bırakıldı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Legal firmware</source>
        <translation>Yasal aygıt yazılımı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Letters, digits, _ and -, at most 63; * means all.</source>
        <translation>Harf, rakam, _ ve -, en çok 63; * tümü demektir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Limit {device}</source>
        <translation>Gücü sınırla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Line</source>
        <translation>Hat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Line format</source>
        <translation>Hat biçimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Link octet</source>
        <translation>Bağlantı okteti</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Link to the sensor unit</source>
        <translation>Sensör birimiyle bağlantı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>List directives</source>
        <translation>Yönergeleri listele</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>List modules</source>
        <translation>Modülleri listele</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Listen at</source>
        <translation>Dinleme adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Listen for</source>
        <translation>Dinleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on</source>
        <translation>Dinleme adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Listen on port</source>
        <translation>Dinleme portu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only</source>
        <translation>Yalnızca dinle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Listen only: nothing is ever sent, every message on the line becomes a row.</source>
        <translation>Yalnızca dinle: hiçbir şey gönderilmez, hattaki her ileti bir satır olur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Listening port</source>
        <translation>Dinleme portu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values before the test</source>
        <translation>Testten önceki canlı değerler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Live values under load</source>
        <translation>Yük altındaki canlı değerler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>LoRaWAN meters of one grid share a pace. Empty: none</source>
        <translation>Bir şebekenin LoRaWAN sayaçları ortak bir hızı paylaşır. Boş: yok</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load active power</source>
        <translation>Yük aktif gücü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load demand</source>
        <translation>Yük demantı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load energy consumed</source>
        <translation>Yükün tükettiği enerji</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load peak demand</source>
        <translation>Yük en yüksek demantı</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Load profile</source>
        <translation>Yük profili</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 1</source>
        <translation>Yük profili 1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile 2</source>
        <translation>Yük profili 2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Load profile period</source>
        <translation>Yük profili periyodu</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Load runtime</source>
        <translation>Yük çalışma süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Local address</source>
        <translation>Yerel adres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Log</source>
        <translation>Günlük</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Log of parameter changes</source>
        <translation>Parametre değişikliği günlüğü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Logical device</source>
        <translation>Mantıksal cihaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Longest APDU</source>
        <translation>En uzun APDU</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Longest readout</source>
        <translation>En uzun readout</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Look at a command every</source>
        <translation>Komuta bakma aralığı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Low octet first</source>
        <translation>Düşük oktet önce</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest credit afterwards</source>
        <translation>Sonrasında en düşük kredi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest current under load</source>
        <translation>Yük altında en düşük akım</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest signal quality (CSQ)</source>
        <translation>En düşük sinyal kalitesi (CSQ)</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Lowest voltage</source>
        <translation>En düşük gerilim</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>MD5 (HLS)</source>
        <translation>MD5 (HLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT broker</source>
        <translation>MQTT aracısı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT password</source>
        <translation>MQTT parolası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT port</source>
        <translation>MQTT portu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT user</source>
        <translation>MQTT kullanıcısı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>MQTT with TLS</source>
        <translation>TLS ile MQTT</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Made here by Make certificate; its key is in this computer&apos;s keyring. Give a copy to the device.</source>
        <translation>Burada Sertifika oluştur ile yapılır; anahtarı bu bilgisayarın anahtarlığındadır. Cihaza bir kopyasını verin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Made in ChirpStack under API keys.</source>
        <translation>ChirpStack&apos;te API keys altında oluşturulur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Make</source>
        <translation>Marka</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make a certificate for the hub of {device}</source>
        <translation>Hub sertifikası oluştur: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Make certificate</source>
        <translation>Sertifika oluştur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Makes the certificate of the encrypted hub (wss) with its key. The result holds it for the device to trust; the key stays in this computer&apos;s keyring. Devices that trust an earlier one need the new one, and all devices of this hub connect anew.</source>
        <translation>Şifreli hub&apos;ın (wss) sertifikasını anahtarıyla oluşturur. Sonuç, cihazın güvenmesi için sertifikayı içerir; anahtar bu bilgisayarın anahtarlığında kalır. Öncekine güvenen cihazların yenisine gereksinimi olur ve bu hub&apos;ın tüm cihazları yeniden bağlanır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Makes the meter known to ChirpStack and gives it its key. A meter that is known already stays as it is.</source>
        <translation>Sayacı ChirpStack&apos;e tanıtır ve ona anahtarını verir. Zaten bilinen sayaç olduğu gibi kalır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manual, idle</source>
        <translation>Elle, boşta</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Manufacturer</source>
        <translation>Üretici</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>March</source>
        <translation>Mart</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent export</source>
        <translation>Maksimum demant görünür veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand apparent import</source>
        <translation>Maksimum demant görünür çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand export</source>
        <translation>Maksimum demant veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand import</source>
        <translation>Maksimum demant çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand net</source>
        <translation>Maksimum demant net</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive export</source>
        <translation>Maksimum demant reaktif veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Maximum demand reactive import</source>
        <translation>Maksimum demant reaktif çekiş</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May</source>
        <translation>Mayıs</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>May take minutes, during which no live values are read.</source>
        <translation>Dakikalar sürebilir; bu sırada canlı değer okunmaz.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measure the battery voltage at the terminals. What does your instrument show?</source>
        <translation>Batarya gerilimini uçlarda ölçün. Ölçü aletiniz ne gösteriyor?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Measuring failure</source>
        <translation>Ölçüm arızası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Meter address</source>
        <translation>Sayaç adresi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Meter behind an Aviora gateway</source>
        <translation>Aviora ağ geçidi arkasındaki sayaç</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Meter on an optical head, RS-485 or serial server</source>
        <translation>Optik başlık, RS-485 veya seri sunucudaki sayaç</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Meter serial</source>
        <translation>Sayaç seri numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Meter: tests a module</source>
        <translation>Sayaç: modülü test eder</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>Meters behind the device-messaging service: it keeps queue and retries, answers come as signed webhooks.</source>
        <translation>Cihaz mesajlaşma hizmetinin arkasındaki sayaçlar: kuyruğu ve yeniden denemeleri o tutar, yanıtlar imzalı webhook olarak gelir.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Meters on an optical head, RS-485 or TCP: readout, registers, load profile, clock (also IEC 1107).</source>
        <translation>Optik başlık, RS-485 veya TCP üzerindeki sayaçlar: readout, registerler, yük profili, saat (IEC 1107 de).</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Meters that speak DLMS/COSEM over a serial line, an optical head or TCP, with or without keys.</source>
        <translation>Seri hat, optik başlık veya TCP üzerinden, anahtarlı veya anahtarsız DLMS/COSEM konuşan sayaçlar.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Method</source>
        <translation>Metot</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Methods reset registers, end demand periods and switch the supply.</source>
        <translation>Metotlar registerleri sıfırlar, demant dönemlerini bitirir ve enerjiyi açıp kapatır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Minute</source>
        <translation>Dakika</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Mode</source>
        <translation>Mod</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Mode D: until the meter sends.</source>
        <translation>Mod D: sayaç gönderene kadar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Model</source>
        <translation>Model</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Modes A, B and D have no programming mode; read the meter out instead.</source>
        <translation>A, B ve D modlarının programlama modu yoktur; bunun yerine sayaçtan readout alın.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module</source>
        <translation>Modül</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Module: tests a meter</source>
        <translation>Modül: sayacı test eder</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Monday</source>
        <translation>Pazartesi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Month</source>
        <translation>Ay</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>NONE</source>
        <translation>NONE</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate and seals</source>
        <translation>Etiket ve mühürler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nameplate, wiring and seals</source>
        <translation>Etiket, bağlantılar ve mühürler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Names and addresses of this computer</source>
        <translation>Bu bilgisayarın adları ve adresleri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>National practice</source>
        <translation>Ulusal uygulama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Needed with calin-api-v1 and calin-api-v2</source>
        <translation>calin-api-v1 ve calin-api-v2 için gerekli</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Needs a certificate: Make certificate makes one for the device to trust.</source>
        <translation>Sertifika gerektirir: Sertifika oluştur, cihazın güveneceği bir tane yapar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs an association that may write it.</source>
        <translation>Saati yazabilen bir ilişki gerektirir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Needs the meter&apos;s password in the connection.</source>
        <translation>Bağlantıda sayacın parolasını gerektirir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Network server</source>
        <translation>Ağ sunucusu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Never used below the warning level.</source>
        <translation>Uyarı düzeyinin altında hiç kullanılmaz.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Nominal voltage</source>
        <translation>Anma gerilimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>None: nothing is answered</source>
        <translation>Yok: hiçbir şey yanıtlanmaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Not at all</source>
        <translation>Hiç</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>November</source>
        <translation>Kasım</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its concentrator</source>
        <translation>Konsantratörünün numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Number of its grid at the head-end</source>
        <translation>Şebekesinin merkez sistemdeki numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Number of the record</source>
        <translation>Kaydın numarası</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Numbers in digits, octets in hex, times in ISO 8601; raw is A-XDR in hex.</source>
        <translation>Sayılar rakamla, oktetler onaltılık, zamanlar ISO 8601; raw, onaltılık A-XDR&apos;dir.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>OBIS code</source>
        <translation>OBIS kodu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record</source>
        <translation>OCMF kaydı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>OCMF record from the meter&apos;s memory</source>
        <translation>Sayacın belleğinden OCMF kaydı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Object list</source>
        <translation>Nesne listesi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Octets</source>
        <translation>Oktetler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Octets in hex begin with 0x. A wrong one is not tried again by itself.</source>
        <translation>Onaltılık oktetler 0x ile başlar. Yanlış olan kendiliğinden yeniden denenmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Octets per frame</source>
        <translation>Çerçeve başına oktet</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>October</source>
        <translation>Ekim</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Of a three-phase meter the mean is judged here, and each phase in the next step.</source>
        <translation>Üç fazlı sayaçta burada ortalama, sonraki adımda her faz değerlendirilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Of a typed value; empty: the parameter itself.</source>
        <translation>Türlü bir değerin; boş: parametrenin kendisi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of charging or discharging, without a sign; empty: the device chooses. Devices clamp to 700 W charging and 300 W discharging.</source>
        <translation>Şarj veya deşarj gücü, işaretsiz; boş: cihaz seçer. Cihazlar 700 W şarj ve 300 W deşarjla sınırlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Of one whole request.</source>
        <translation>Tek bir tam isteğin süresi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Of phase A only; this service does not tell the others.</source>
        <translation>Yalnızca A fazının; bu hizmet diğerlerini bildirmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Of programming mode, mostly 8 digits. Empty: without.</source>
        <translation>Programlama modunun parolası, çoğunlukla 8 rakam. Boş: parolasız.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Of the head-end or its issuer; empty: the usual ones.</source>
        <translation>Merkez sistemin veya yayımcısının sertifikası; boş: olağanlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Of the meter on its HDLC line, often 17 or the last digits of its number; empty: none.</source>
        <translation>Sayacın HDLC hattındaki adresi, çoğu zaman 17 veya numarasının son basamakları; boş: yok.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter of one phase: then only voltage L1 is judged.</source>
        <translation>Tek fazlı sayaçta kapalı: o zaman yalnızca L1 gerilimi değerlendirilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Off for a meter that reads out registers only.</source>
        <translation>Yalnızca register veren sayaçta kapalı.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One flag between them</source>
        <translation>Aralarında tek bayrak</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per answer: text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. The first that fits answers.</source>
        <translation>Her yanıta bir satır: text:/?!\r\n =&gt; text:/MWT5METER\r\n, hex:00 01 =&gt; hex:00 02, re:.* =&gt; echo. İlk uyan yanıtlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>One line per parameter, for example 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</source>
        <translation>Her parametreye bir satır, örneğin 0x8005 = text:204536110042, 0x2801 = str:internet ; delay=200ms, 0x2804 = u8:1 ; bad-fcs, 0x2802 = error.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>One login at the vendor&apos;s service.</source>
        <translation>Üretici hizmetinde tek oturum.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One of the same id is replaced. The known firmware stores directives and does not execute them.</source>
        <translation>Aynı kimlikli yönerge değiştirilir. Bilinen aygıt yazılımı yönergeleri saklar, yürütmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>One operation=parameter a line, for example setBaud=300.</source>
        <translation>Her satıra bir işlem=parametre, örneğin setBaud=300.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Only Turkish national meters have this (96.3.10). Sign on once, or choose the national practice in the connection.</source>
        <translation>Bu yalnızca Türk ulusal sayaçlarında vardır (96.3.10). Bir kez oturum açın veya bağlantıda ulusal uygulamayı seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter ems"/>
        <source>Only a bench hub has a certificate of its own.</source>
        <translation>Yalnızca tezgâh hub&apos;ının kendi sertifikası vardır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only after an inspection: the device switches its output on again as soon as it is asked for power.</source>
        <translation>Yalnızca incelemeden sonra: cihaz, güç istenir istenmez çıkışını yeniden açar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only an intermediate record</source>
        <translation>Yalnızca ara kayıt</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Only for 0x2803, instead of the value; it is never shown.</source>
        <translation>Yalnızca 0x2803 için, değerin yerine; asla gösterilmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Only of a three-phase meter whose head-end tells all of them.</source>
        <translation>Yalnızca merkez sistemi tüm fazları bildiren üç fazlı sayaçta.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only sent to newer firmware (v2).</source>
        <translation>Yalnızca yeni aygıt yazılımına (v2) gönderilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Only the serial number has an effect today. To change a meter, remove it first. The gateway lists no meters; what was sent is kept here.</source>
        <translation>Bugün yalnızca seri numarasının etkisi vardır. Bir sayacı değiştirmek için önce kaldırın. Ağ geçidi sayaçları listelemez; gönderilenler burada saklanır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Only when it lasts</source>
        <translation>Yalnızca bu kadar sürerse</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Operand</source>
        <translation>İşlenen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Optical head, RS-485 adapter or serial server. Several meters may share one line.</source>
        <translation>Optik başlık, RS-485 adaptörü veya seri sunucu. Birden çok sayaç bir hattı paylaşabilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Optical heads mostly need the sign-on.</source>
        <translation>Optik başlıklar çoğunlukla oturum açmayı gerektirir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the FCS</source>
        <translation>FCS sırası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Order of the request id and form of strings.</source>
        <translation>İstek kimliğinin sırası ve dizgilerin biçimi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other channels</source>
        <translation>Diğer kanallar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Other mode (expert)</source>
        <translation>Başka mod (uzman)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Other side</source>
        <translation>Diğer taraf</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Others than everything: Turkish meters.</source>
        <translation>Tümünün dışındakiler: Türk sayaçları.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>P.01, P.02 and so on.</source>
        <translation>P.01, P.02 ve devamı.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>PHONE_NUMBER</source>
        <translation>PHONE_NUMBER</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Packets</source>
        <translation>Paketler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pagination</source>
        <translation>Sayfa numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameter</source>
        <translation>Parametre</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Parameter version</source>
        <translation>Parametre sürümü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Parameters without answer</source>
        <translation>Yanıtı olmayan parametreler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Parity by</source>
        <translation>Eşlik</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough</source>
        <translation>Saydam geçiş</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough as the module: channels 22 to 24.</source>
        <translation>Modül gibi saydam geçiş: 22 – 24 arası kanallar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough between TCP and serial line</source>
        <translation>TCP ile seri hat arasında saydam geçiş</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Passthrough: socket://HOST:PORT to connect to, or a second serial port; empty: listen on the address above.</source>
        <translation>Saydam geçiş: bağlanılacak socket://HOST:PORT veya ikinci bir seri port; boş: yukarıdaki adreste dinle.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password</source>
        <translation>Parola</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for maintenance</source>
        <translation>Bakım için parola</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for sales</source>
        <translation>Satışlar için parola</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>Password for tasks</source>
        <translation>Görevler için parola</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Password kind</source>
        <translation>Parola türü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Password or secret</source>
        <translation>Parola veya gizli anahtar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Path</source>
        <translation>Yol</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Pause between frames</source>
        <translation>Çerçeveler arası duraklama</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence at the terminals</source>
        <translation>Uçlardaki faz sırası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase sequence by the meter&apos;s angles</source>
        <translation>Sayacın açılarına göre faz sırası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Phase to neutral; 10 % are allowed either way.</source>
        <translation>Faz-nötr; her iki yönde yüzde 10&apos;a izin verilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Phases</source>
        <translation>Fazlar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Physical address</source>
        <translation>Fiziksel adres</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Pinned TLS certificate</source>
        <translation>Sabitlenmiş TLS sertifikası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Place and cabling</source>
        <translation>Yer ve kablolama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Play the start of a module</source>
        <translation>Modül başlangıcını canlandır</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin at the head-end</source>
        <translation>Merkez sistemdeki eklenti</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Plugin that makes tokens for meters whose own plugin makes none: nxt-sts.</source>
        <translation>Kendi eklentisi jeton üretmeyen sayaçlar için jeton üreten eklenti: nxt-sts.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Poll serial</source>
        <translation>Kimin orada olduğunu sor</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Port</source>
        <translation>Port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Port of the gateway</source>
        <translation>Ağ geçidinin portu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power</source>
        <translation>Güç</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute</source>
        <translation>Mutlak güç</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L1</source>
        <translation>Mutlak güç L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L2</source>
        <translation>Mutlak güç L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power absolute L3</source>
        <translation>Mutlak güç L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export</source>
        <translation>Görünür güç veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L1</source>
        <translation>Görünür güç veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L2</source>
        <translation>Görünür güç veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent export L3</source>
        <translation>Görünür güç veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import</source>
        <translation>Görünür güç çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L1</source>
        <translation>Görünür güç çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L2</source>
        <translation>Görünür güç çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power apparent import L3</source>
        <translation>Görünür güç çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export</source>
        <translation>Güç veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L1</source>
        <translation>Güç veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L2</source>
        <translation>Güç veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power export L3</source>
        <translation>Güç veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor</source>
        <translation>Güç faktörü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L1</source>
        <translation>Güç faktörü L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L2</source>
        <translation>Güç faktörü L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power factor L3</source>
        <translation>Güç faktörü L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power failures</source>
        <translation>Enerji kesintileri</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import</source>
        <translation>Güç çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L1</source>
        <translation>Güç çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L2</source>
        <translation>Güç çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power import L3</source>
        <translation>Güç çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Power limit</source>
        <translation>Güç sınırı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net</source>
        <translation>Net güç</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L1</source>
        <translation>Net güç L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L2</source>
        <translation>Net güç L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power net L3</source>
        <translation>Net güç L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of charging</source>
        <translation>Şarj gücü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power of discharging</source>
        <translation>Deşarj gücü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Power reached</source>
        <translation>Ulaşılan güç</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export</source>
        <translation>Reaktif güç veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L1</source>
        <translation>Reaktif güç veriş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L2</source>
        <translation>Reaktif güç veriş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive export L3</source>
        <translation>Reaktif güç veriş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import</source>
        <translation>Reaktif güç çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L1</source>
        <translation>Reaktif güç çekiş L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L2</source>
        <translation>Reaktif güç çekiş L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive import L3</source>
        <translation>Reaktif güç çekiş L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I</source>
        <translation>Reaktif güç kadran I</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L1</source>
        <translation>Reaktif güç kadran I L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L2</source>
        <translation>Reaktif güç kadran I L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant I L3</source>
        <translation>Reaktif güç kadran I L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II</source>
        <translation>Reaktif güç kadran II</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L1</source>
        <translation>Reaktif güç kadran II L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L2</source>
        <translation>Reaktif güç kadran II L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant II L3</source>
        <translation>Reaktif güç kadran II L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III</source>
        <translation>Reaktif güç kadran III</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L1</source>
        <translation>Reaktif güç kadran III L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L2</source>
        <translation>Reaktif güç kadran III L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant III L3</source>
        <translation>Reaktif güç kadran III L3</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV</source>
        <translation>Reaktif güç kadran IV</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L1</source>
        <translation>Reaktif güç kadran IV L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L2</source>
        <translation>Reaktif güç kadran IV L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Power reactive quadrant IV L3</source>
        <translation>Reaktif güç kadran IV L3</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Prefix of commands</source>
        <translation>Komut öneki</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Prepaid AC meters behind ChirpStack v4: commands by REST or gRPC, answers by webhook or MQTT.</source>
        <translation>ChirpStack v4 arkasındaki ön ödemeli AC sayaçlar: komutlar REST veya gRPC ile, yanıtlar webhook veya MQTT ile.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s first service.</source>
        <translation>Konsantratörlerin ve üreticinin birinci hizmetinin arkasındaki ön ödemeli AC sayaçlar.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v2"/>
        <source>Prepaid AC meters behind concentrators and the vendor&apos;s second service.</source>
        <translation>Konsantratörlerin ve üreticinin ikinci hizmetinin arkasındaki ön ödemeli AC sayaçlar.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Prepayment classes are not supported.</source>
        <translation>Ön ödeme sınıfları desteklenmiyor.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Profile</source>
        <translation>Profil</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Profiles get a gap or a double period when the clock moves far.</source>
        <translation>Saat çok kaydırılırsa profillerde boşluk veya çift dönem oluşur.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Program version</source>
        <translation>Program sürümü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Property number</source>
        <translation>Mülkiyet numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Protocol</source>
        <translation>Protokol</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Protocol mode</source>
        <translation>Protokol modu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error</source>
        <translation>Hata oluştur</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Provoke an error at the device (for example by unplugging its temperature sensor), wait until its state is ERROR, then remove the cause. Is it done?</source>
        <translation>Cihazda bir hata oluşturun (örneğin sıcaklık sensörünü çıkararak), durumu ERROR olana kadar bekleyin, sonra nedenini giderin. Yapıldı mı?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Public key</source>
        <translation>Açık anahtar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Pull port</source>
        <translation>Çekme portu</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>QuecPython module link</source>
        <translation>QuecPython modül bağlantısı</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module on the network</source>
        <translation>Ağdaki QuecPython modülü</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>QuecPython module or its meter, on a serial line</source>
        <translation>QuecPython modülü veya sayacı, seri hatta</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>READ_REPORT is never sent; it is a report of LoRaWAN meters.</source>
        <translation>READ_REPORT hiç gönderilmez; LoRaWAN sayaçlarının bir bildirimidir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>RS-485</source>
        <translation>RS-485</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>RS-485 by RTS</source>
        <translation>RTS ile RS-485</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>RS-485 driver by RTS</source>
        <translation>RTS ile RS-485 sürücüsü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Rate</source>
        <translation>Hız</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Rate and character, for example 115200 8N1 or 9600 8N1.</source>
        <translation>Hız ve karakter, örneğin 115200 8N1 veya 9600 8N1.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Rate and format</source>
        <translation>Hız ve biçim</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Raw</source>
        <translation>Oktet gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Raw octets</source>
        <translation>Ham oktetler</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read TLS certificate</source>
        <translation>TLS sertifikasını oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read all registers</source>
        <translation>Tüm registerleri oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read attribute</source>
        <translation>Özniteliği oku</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Read back by its id and verified once more.</source>
        <translation>Kimliğiyle geri okunur ve bir kez daha doğrulanır.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read certificate</source>
        <translation>Sertifikayı oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read clock</source>
        <translation>Saati oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read credit</source>
        <translation>Krediyi oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read current</source>
        <translation>Akımı oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read date</source>
        <translation>Tarihi oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read events</source>
        <translation>Olayları oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read legal</source>
        <translation>İşlem belgesini oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live</source>
        <translation>Anlık değerleri oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read live values</source>
        <translation>Canlı değerleri oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read load profile</source>
        <translation>Yük profilini oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read log</source>
        <translation>Günlüğü oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read logbook</source>
        <translation>Kayıt defterini oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read meter parameter</source>
        <translation>Sayaç parametresini oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Read metrics</source>
        <translation>Ölçümleri oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read module parameter</source>
        <translation>Modül parametresini oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read object list</source>
        <translation>Nesne listesini oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read objects</source>
        <translation>Nesneleri oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Read out</source>
        <translation>Readout al</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power</source>
        <translation>Gücü oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read power limit</source>
        <translation>Güç sınırını oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile info</source>
        <translation>Yük profilinin yapısını oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read profile layout</source>
        <translation>Profil düzenini oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read record</source>
        <translation>Kaydı oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read register</source>
        <translation>Registeri oku</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Read registers</source>
        <translation>Tüm register&apos;ları oku</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>Read report</source>
        <translation>Bildirimi oku</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Read serial</source>
        <translation>Seri numarasını oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Read serial number</source>
        <translation>Seri numarasını oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read settings</source>
        <translation>Ayarları oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read signed record</source>
        <translation>İmzalı kaydı oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read status</source>
        <translation>Durumu oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read time</source>
        <translation>Saati oku</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Read transaction document</source>
        <translation>İşlem belgesini oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read version</source>
        <translation>Sürümü oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Read voltage</source>
        <translation>Gerilimi oku</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Read with</source>
        <translation>Okuma komutu</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>Readout</source>
        <translation>Readout</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Readout table</source>
        <translation>Readout tablosu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter&apos;s identification; the optical head has to sit on the meter with its cable downwards.</source>
        <translation>Sayacın tanıtımını okur; optik başlık sayacın üzerinde, kablosu aşağıda olmalıdır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reads the meter, clears its tamper flag and credit, sets its power limit, reads voltage and power, loads the first credit of its grid, and reads it again. The credit that is in the meter is lost.</source>
        <translation>Sayacı okur, müdahale bayrağını ve krediyi sıfırlar, güç sınırını ayarlar, gerilimi ve gücü okur, şebekesinin ilk kredisini yükler ve yeniden okur. Sayaçtaki kredi kaybolur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Register</source>
        <translation>Register</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register at the network server</source>
        <translation>Ağ sunucusuna kaydettir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Register {device}</source>
        <translation>Kaydettir: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Registers are missing</source>
        <translation>Eksik registerler var</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Relay flag of a report</source>
        <translation>Bildirimin röle bayrağı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Release when idle for</source>
        <translation>Boşta bırakma süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove from {device}</source>
        <translation>Sayacı kaldır: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Remove meter</source>
        <translation>Sayacı kaldır</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Repeats without an answer</source>
        <translation>Yanıtsız tekrar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Request id</source>
        <translation>İstek kimliği</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset error</source>
        <translation>Hatayı sıfırla</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Reset the error</source>
        <translation>Hatayı sıfırla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Reset the error of {device}</source>
        <translation>Hatayı sıfırla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Resets</source>
        <translation>Sıfırlama sayısı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Role</source>
        <translation>Rol</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role meter: what answers what the head-end sends.</source>
        <translation>Sayaç rolü: merkez sistemin gönderdiğini yanıtlayan.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module and passthrough.</source>
        <translation>Modül rolü ve saydam geçiş.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: text lines with AT next to frames. Values stand in the answers: AT+CSQ = 23.</source>
        <translation>Modül rolü: çerçevelerin yanında AT içeren metin satırları. Değerler yanıtlardadır: AT+CSQ = 23.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role module: the UART is deaf until the network is up.</source>
        <translation>Modül rolü: ağ açılana kadar UART sağırdır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Role of this computer</source>
        <translation>Bu bilgisayarın rolü</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent export</source>
        <translation>Süren ortalama görünür veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average apparent import</source>
        <translation>Süren ortalama görünür çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average export</source>
        <translation>Süren ortalama veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average import</source>
        <translation>Süren ortalama çekiş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average net</source>
        <translation>Süren ortalama net</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive export</source>
        <translation>Süren ortalama reaktif veriş</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Running average reactive import</source>
        <translation>Süren ortalama reaktif çekiş</translation>
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
        <translation>READ_CERTIFICATE komutunun gösterdiği gibi sertifikanın SHA-256 özeti; açmak için gerekli.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SHA-256 of the signed bytes</source>
        <translation>İmzalanan baytların SHA-256 özeti</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>SIM card: ICCID</source>
        <translation>SIM kart: ICCID</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>STR (09)</source>
        <translation>STR (09)</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Saturday</source>
        <translation>Cumartesi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Script</source>
        <translation>Betik</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Second</source>
        <translation>Saniye</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Second answer</source>
        <translation>İkinci yanıt</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Second port</source>
        <translation>İkinci port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server</source>
        <translation>İkinci zaman sunucusu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Second time server, port</source>
        <translation>İkinci zaman sunucusu, port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send</source>
        <translation>Gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send AT line</source>
        <translation>AT satırı gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send a frame</source>
        <translation>Çerçeve gönder</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Send a test event</source>
        <translation>Test olayı gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send event</source>
        <translation>Olay gönder</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send frame</source>
        <translation>Çerçeve gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send octets</source>
        <translation>Oktet gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Send to {device}</source>
        <translation>Gönder: {device}</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Send transparent</source>
        <translation>Saydam veri gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Send transparent data</source>
        <translation>Saydam veri gönder</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Send {device} to another server</source>
        <translation>Başka sunucuya yönlendir: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sends what is set under Identify by asking, and takes the first digits of the answer for the identity.</source>
        <translation>Sorarak tanı alanında ayarlananı gönderir ve yanıtın ilk rakamlarını kimlik olarak alır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as Authorization: Bearer, never in the address.</source>
        <translation>Authorization: Bearer olarak gönderilir, adreste asla yer almaz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Sent as Authorization: Bearer. Empty for a service that asks for none.</source>
        <translation>Authorization: Bearer olarak gönderilir. Anahtar istemeyen hizmet için boş.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Sent as it stands here instead of a mode of the list.</source>
        <translation>Listedeki mod yerine, burada yazıldığı gibi gönderilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Sent in each frame, for example the signal quality 0..31 or 99. Other values than 0 are dropped by peers that compare 16 bits; the stock firmware is one.</source>
        <translation>Her çerçevede gönderilir, örneğin sinyal kalitesi 0..31 veya 99. 0&apos;dan farklı değerleri 16 biti karşılaştıran karşı taraflar atar; fabrika yazılımı bunlardan biridir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>September</source>
        <translation>Eylül</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Serial number</source>
        <translation>Seri numarası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number in the record</source>
        <translation>Kayıttaki seri numarası</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Serial number of the meter behind it</source>
        <translation>Arkasındaki sayacın seri numarası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serial port</source>
        <translation>Seri port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Serial port or its URL; not used by the server.</source>
        <translation>Seri port veya URL&apos;si; sunucu kullanmaz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on</source>
        <translation>Sunum adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Serve on port</source>
        <translation>Sunum portu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Served to the gateway from here instead, as long as the order runs.</source>
        <translation>Bunun yerine, iş sürdükçe ağ geçidine buradan sunulur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server address</source>
        <translation>Sunucu adresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Server port</source>
        <translation>Sunucu portu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server that modules connect to</source>
        <translation>Modüllerin bağlandığı sunucu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Server: sent to a module that does not log in, for example text:/?!\r\n or hex:7EA0...; its first digits are the identity. Empty: nothing is sent.</source>
        <translation>Sunucu: oturum açmayan modüle gönderilir, örneğin text:/?!\r\n veya hex:7EA0...; ilk rakamları kimliktir. Boş: hiçbir şey gönderilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Service</source>
        <translation>Hizmet</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set clock</source>
        <translation>Saati ayarla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set date</source>
        <translation>Tarihi ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set daylight saving</source>
        <translation>Yaz saatini ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set dst</source>
        <translation>Yaz saatini ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set identification type</source>
        <translation>Tanıtım türünü ayarla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means off</source>
        <translation>Bayrak 1: kapalı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Set means on</source>
        <translation>Bayrak 1: açık</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set meter parameter</source>
        <translation>Sayaç parametresini yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set mode</source>
        <translation>Modu ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set ntp</source>
        <translation>Zaman sunucularını ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Set parameter</source>
        <translation>Modül parametresini yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set power limit</source>
        <translation>Güç sınırını ayarla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Set server</source>
        <translation>Sunucuyu ayarla</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the clock</source>
        <translation>Saati ayarla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Set the clock of {device}</source>
        <translation>Saati ayarla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set the date of {device}</source>
        <translation>Tarihi ayarla: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Set the meter&apos;s clock</source>
        <translation>Sayacın saatini ayarla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Set the mode of {device}</source>
        <translation>Modu ayarla: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Set time</source>
        <translation>Saati ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time servers</source>
        <translation>Zaman sunucularını ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set time zone</source>
        <translation>Saat dilimini ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set timezone</source>
        <translation>Saat dilimini ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Set tls</source>
        <translation>TLS ayarla</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sets the clock, or the time servers, and zone and daylight saving where configured.</source>
        <translation>Saati veya zaman sunucularını, yapılandırıldıysa dilimi ve yaz saatini ayarlar.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Setting the clock switches NTP off in the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Saati ayarlamak sayaçtaki NTP&apos;yi kapatır. Sayaç, enerji geldikten sonraki ilk iki dakikada yazılan bir ayarı kaybedebilir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shift</source>
        <translation>Kaydırma</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Show only</source>
        <translation>Yalnızca göster</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Shows the certificate and its fingerprint; compare them before switching TLS on.</source>
        <translation>Sertifikayı ve parmak izini gösterir; TLS&apos;yi açmadan önce karşılaştırın.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Sign on</source>
        <translation>Oturum aç</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signal quality</source>
        <translation>Sinyal kalitesi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signature</source>
        <translation>İmza</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Signed records carry this time.</source>
        <translation>İmzalı kayıtlar bu saati taşır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>So long after the vendor took it. Looks happen every five seconds.</source>
        <translation>Üretici görevi aldıktan bu kadar sonra. Her beş saniyede bir bakılır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Software: for ports and serial servers that only do 8N1; the meter still sees 7E1.</source>
        <translation>Yazılım: yalnızca 8N1 yapan portlar ve seri sunucular için; sayaç yine 7E1 görür.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some firmware does not tell it.</source>
        <translation>Bazı aygıt yazılımları bunu bildirmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Some meters only become ready: then somebody presses the button on the meter, and the step is done again.</source>
        <translation>Bazı sayaçlar yalnızca hazır duruma geçer: biri sayacın düğmesine basar ve adım yeniden yapılır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Somebody at the device has to provoke an error and to remove it again.</source>
        <translation>Cihazın başındaki birinin bir hata oluşturup yeniden gidermesi gerekir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Source address on this computer; empty: the system chooses.</source>
        <translation>Bu bilgisayardaki kaynak adres; boş: sistem seçer.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Source of the time</source>
        <translation>Saatin kaynağı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Stands before the number of each command at the service. Empty: mw- and a word of this workspace, so that two workspaces at one service do not meet.</source>
        <translation>Hizmetteki her komutun numarasının önünde durur. Boş: mw- ve bu çalışma alanının bir sözcüğü, böylece bir hizmetteki iki çalışma alanı çakışmaz.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start on {device}</source>
        <translation>Başlat: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Start the test transaction</source>
        <translation>Test işlemini başlat</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Start transaction</source>
        <translation>İşlemi başlat</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>Start up</source>
        <translation>Bir modülün açılışını oynat</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of charge</source>
        <translation>Doluluk oranı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>State of health</source>
        <translation>Sağlık durumu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>State of the disconnector</source>
        <translation>Kesme rölesinin durumu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Status (17: ready)</source>
        <translation>Durum (17: hazır)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Steps</source>
        <translation>Adımlar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Still there</source>
        <translation>Hâlâ orada</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stock firmware loses both; a meter then has to pause between frames.</source>
        <translation>Fabrika yazılımı ikisini de kaybeder; sayaç o zaman çerçeveler arasında duraklamalıdır.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop on {device}</source>
        <translation>Durdur: {device}</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Stop transaction</source>
        <translation>İşlemi durdur</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store directive</source>
        <translation>Yönerge sakla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Store on {device}</source>
        <translation>Yönerge sakla: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Stored records</source>
        <translation>Saklanan kayıtlar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Subject</source>
        <translation>Konu</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Such as 0.1.4.0. Empty: it is shown and not judged.</source>
        <translation>Örneğin 0.1.4.0. Boş: gösterilir, değerlendirilmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Suite 0, encrypted and authenticated.</source>
        <translation>Suite 0, şifreli ve kimliği doğrulanmış.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summary</source>
        <translation>Özet</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Summer time</source>
        <translation>Yaz saati</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sunday</source>
        <translation>Pazar</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply</source>
        <translation>Besleme</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply is on</source>
        <translation>Enerji açık</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Supply relay</source>
        <translation>Kesme rölesi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Supply voltage</source>
        <translation>Besleme gerilimi</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Switch TLS</source>
        <translation>TLS&apos;yi aç/kapat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Switch the driver by RTS while sending; most adapters do it by themselves.</source>
        <translation>Gönderirken sürücüyü RTS ile anahtarlar; çoğu adaptör bunu kendisi yapar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Switch the driver of an RS-485 adapter by RTS while sending.</source>
        <translation>Gönderirken RS-485 adaptörünün sürücüsünü RTS ile anahtarlar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Switch the supply off and on</source>
        <translation>Enerjiyi kesip yeniden ver</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Switches the driver while sending.</source>
        <translation>Gönderirken sürücüyü anahtarlar.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Sync time</source>
        <translation>Saati eşitle</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Synchronise clock</source>
        <translation>Saati eşitle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>System title of this client</source>
        <translation>Bu istemcinin sistem başlığı</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>TLS</source>
        <translation>TLS</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>TLS certificate</source>
        <translation>TLS sertifikası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Take what is written</source>
        <translation>Yazılanı al</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Tampering</source>
        <translation>Müdahale</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Tap: octets as they are, with a decoded copy</source>
        <translation>Dinleme ucu: oktetler olduğu gibi, çözülmüş bir kopyayla</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tariff</source>
        <translation>Tarife</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tariff text</source>
        <translation>Tarife metni</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature H</source>
        <translation>Sıcaklık H</translation>
    </message>
    <message>
        <location filename="../../app/adapters/lem_dcbm.py"/>
        <source>Temperature L</source>
        <translation>Sıcaklık L</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Tenant</source>
        <translation>Kiracı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test event</source>
        <translation>Test olayı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Test the reset of an error</source>
        <translation>Hata sıfırlamayı test et</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The 20 digits of the token; blanks and dashes do not matter.</source>
        <translation>Jetonun 20 rakamı; boşluk ve tirelerin önemi yoktur.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The OCMF record by id or number, else the current or last one, with its verdict.</source>
        <translation>Kimliği veya numarasıyla OCMF kaydı, yoksa süren veya son kayıt, kararıyla birlikte.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is charged at once. A full battery does not charge: the walk then fails, and the device is put back to AUTO.</source>
        <translation>Batarya hemen şarj edilir. Dolu batarya şarj olmaz: tur o zaman başarısız olur ve cihaz AUTO&apos;ya geri alınır.</translation>
    </message>
    <message>
        <source>The battery is charged at once. A full battery does not charge: the walk then goes on, and fails at its end, when the device is in AUTO again.</source>
        <translation type="vanished">Batarya hemen şarj edilir. Dolu batarya şarj olmaz: tur o zaman sürer ve sonunda, cihaz yeniden AUTO&apos;dayken başarısız olur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The battery is discharged at once.</source>
        <translation>Batarya hemen deşarj edilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The beginning of a serial number is acknowledged and removes nothing.</source>
        <translation>Seri numarasının başlangıcı onaylanır ama hiçbir şeyi kaldırmaz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The calendar date at the grid.</source>
        <translation>Şebekedeki takvim tarihi.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The clock is set first. A transaction that still runs is stopped before.</source>
        <translation>Önce saat ayarlanır. Hâlâ süren bir işlem önce durdurulur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The connection has to be encrypted</source>
        <translation>Bağlantı şifreli olmalıdır</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The credit is going to be cleared</source>
        <translation>Kredi sıfırlanacak</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer is without power for some seconds. Make sure that nobody works on the installation.</source>
        <translation>Müşteri birkaç saniye enerjisiz kalır. Tesisatta kimsenin çalışmadığından emin olun.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer loses power.</source>
        <translation>Müşteri enerjisiz kalır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The customer loses power. Whatever is found here, and also when the run is stopped, the supply is connected again.</source>
        <translation>Müşteri enerjisiz kalır. Burada ne bulunursa bulunsun, yürütme durdurulsa bile enerji yeniden verilir.</translation>
    </message>
    <message>
        <source>The customer loses power. Whatever is found here, the next step connects the supply again.</source>
        <translation type="vanished">Müşteri enerjisiz kalır. Burada ne bulunursa bulunsun, sonraki adım enerjiyi yeniden verir.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The customer&apos;s installation gets power. Make sure that nobody works on it.</source>
        <translation>Müşterinin tesisatına enerji gelir. Tesisatta kimsenin çalışmadığından emin olun.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched off.</source>
        <translation>Müşterinin enerjisi kesilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The customer&apos;s supply is switched on; nobody may be working on the installation.</source>
        <translation>Müşteriye enerji verilir; tesisatta kimse çalışmıyor olmalıdır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device charges or discharges at once.</source>
        <translation>Cihaz hemen şarj veya deşarj olur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is going to charge with {input.charge_power} W and to discharge with {input.discharge_power} W. Are covers closed, is the emergency stop in reach, and is nobody working on it?</source>
        <translation>Cihaz {input.charge_power} W ile şarj, {input.discharge_power} W ile deşarj olacak. Kapaklar kapalı mı, acil durdurma erişilebilir mi, üzerinde kimse çalışmıyor mu?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is held at 0 W.</source>
        <translation>Cihaz 0 W&apos;ta tutulur.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The device is left in AUTO, also when the walk failed or was stopped.</source>
        <translation>Cihaz AUTO&apos;da bırakılır, tur başarısız olsa veya durdurulsa bile.</translation>
    </message>
    <message>
        <source>The device is left in AUTO. The walk has passed when idle, charging and discharging were confirmed before.</source>
        <translation type="vanished">Cihaz AUTO&apos;da bırakılır. Boşta, şarj ve deşarj önceden doğrulandıysa tur geçmiştir.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>The device messaging service, with its key.</source>
        <translation>Cihaz mesajlaşma hizmeti, anahtarıyla.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The device shows it as Authorization: Bearer. Only a salted hash of it is kept.</source>
        <translation>Cihaz bunu Authorization: Bearer olarak gösterir. Yalnızca tuzlanmış özeti saklanır.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The firmware version cannot be read over LoRaWAN.</source>
        <translation>Aygıt yazılımı sürümü LoRaWAN üzerinden okunamaz.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The first credit that the grid gives, less what is used meanwhile.</source>
        <translation>Şebekenin verdiği ilk kredi, arada kullanılan düşülerek.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway cannot set the clock of a meter. One that is off is set at its optical head.</source>
        <translation>Ağ geçidi bir sayacın saatini ayarlayamaz. Sapmış saat optik başlıktan ayarlanır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway checks neither format nor signature of the image, and never tells the outcome.</source>
        <translation>Ağ geçidi imajın ne biçimini ne imzasını denetler ve sonucu hiç bildirmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway leaves this program and dials the other server, for ever and without introducing itself there. If the address is wrong, somebody has to go to it.</source>
        <translation>Ağ geçidi bu programdan ayrılır ve sürekli olarak, kendini tanıtmadan diğer sunucuya bağlanır. Adres yanlışsa birinin yerine gitmesi gerekir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway puts the meter into its index. It can be taken out again with the command Remove meter.</source>
        <translation>Ağ geçidi sayacı dizinine alır. Sayacı kaldır komutuyla yeniden çıkarılabilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway takes a request on its pull port and answers: the way back to it is open.</source>
        <translation>Ağ geçidi çekme portunda bir istek alır ve yanıtlar: ona geri giden yol açıktır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway tells no failures of a meter: then nothing comes until the time is over.</source>
        <translation>Ağ geçidi sayacın hatalarını bildirmez: o zaman süre dolana kadar hiçbir şey gelmez.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway tells no failures of the meter: then nothing comes at all.</source>
        <translation>Ağ geçidi sayacın hatalarını bildirmez: o zaman hiçbir şey gelmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway was let in under its serial number; what it told of itself stands in the report.</source>
        <translation>Ağ geçidi seri numarasıyla kabul edildi; kendisi hakkında bildirdikleri raporda yer alır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The gateway&apos;s clock shows {fact.device_date}; by this computer it is {now} now. Is it right?</source>
        <translation>Ağ geçidinin saati {fact.device_date} gösteriyor; bu bilgisayara göre şimdi {now}. Doğru mu?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The gateway&apos;s server port, mostly 8722; 0: any free one.</source>
        <translation>Ağ geçidinin sunucu portu, çoğunlukla 8722; 0: boş herhangi biri.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm.</source>
        <translation>Merkez sisteme bir alarm gelir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The head-end gets an alarm: tell its staff before.</source>
        <translation>Merkez sisteme bir alarm gelir: görevlilerine önceden haber verin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The head-end relays commands</source>
        <translation>Merkez sistem komutları iletir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware does not use it.</source>
        <translation>Bilinen aygıt yazılımı bunu kullanmaz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The known firmware stores directives and does not execute them.</source>
        <translation>Bilinen aygıt yazılımı yönergeleri saklar, yürütmez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The link is as it was</source>
        <translation>Bağlantı olduğu gibi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The list is cut</source>
        <translation>Liste kesik</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>The load profile; 1-0:99.1.0 is the first one.</source>
        <translation>Yük profili; ilki 1-0:99.1.0.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The log is cut</source>
        <translation>Günlük kesik</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The manufacturer asks that this be set once in the life of the meter. The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Üretici, bunun sayacın ömründe bir kez ayarlanmasını ister. Sayaç, enerji geldikten sonraki ilk iki dakikada yazılan bir ayarı kaybedebilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to answer before anything is changed.</source>
        <translation>Bir şey değiştirilmeden önce sayaç yanıt vermelidir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter has to be idle and ready, as it was found.</source>
        <translation>Sayaç, bulunduğu gibi boşta ve hazır olmalıdır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter holds {steps.before.result.kwh_credit_available} kWh, which are lost now. May they be cleared?</source>
        <translation>Sayaçta {steps.before.result.kwh_credit_available} kWh var, şimdi kaybolacak. Sıfırlanabilir mi?</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter is back on the module</source>
        <translation>Sayaç yeniden modülde</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter is busy for minutes. Read the logbook only when it is needed.</source>
        <translation>Sayaç dakikalarca meşgul olur. Kayıt defterini yalnızca gerektiğinde okuyun.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter joins the network by itself; it cannot be told to.</source>
        <translation>Sayaç ağa kendiliğinden katılır; bu ona söylenemez.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up.</source>
        <translation>Sayaç, enerji geldikten sonraki ilk iki dakikada yazılan bir ayarı kaybedebilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter may lose a setting that is written in its first two minutes after power-up. Where the clock is set by hand, the time servers in the meter are switched off.</source>
        <translation>Sayaç, enerji geldikten sonraki ilk iki dakikada yazılan bir ayarı kaybedebilir. Saat elle ayarlanırsa sayaçtaki zaman sunucuları kapatılır.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>The meter may not check what is written.</source>
        <translation>Sayaç yazılanı denetlemeyebilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter says it runs</source>
        <translation>Sayaç sürdüğünü söylüyor</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>The meter sends its report by itself; it cannot be asked for.</source>
        <translation>Sayaç bildirimini kendiliğinden gönderir; istenemez.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. A large step may leave a gap or a double period in its load profile.</source>
        <translation>Sayaç bu bilgisayarın saatini alır. Büyük bir adım yük profilinde boşluk veya çift dönem bırakabilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The meter takes this computer&apos;s time. Its profiles get a gap or a double period when the clock moves far.</source>
        <translation>Sayaç bu bilgisayarın saatini alır. Saat çok kaydırılırsa profillerinde boşluk veya çift dönem oluşur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>The meter&apos;s certificate as PEM. When it is filled in, the connection uses TLS and accepts only it.</source>
        <translation>Sayacın PEM biçimindeki sertifikası. Doldurulursa bağlantı TLS kullanır ve yalnızca onu kabul eder.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>The meter&apos;s clock is taken to show this computer&apos;s local time.</source>
        <translation>Sayacın saatinin bu bilgisayarın yerel saatini gösterdiği varsayılır.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>The meter&apos;s gateway does this; choose it in the tree.</source>
        <translation>Bunu sayacın ağ geçidi yapar; onu ağaçtan seçin.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The octets go to the meter as they are; a write among them is carried out.</source>
        <translation>Oktetler sayaca olduğu gibi gider; aralarındaki bir yazma uygulanır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The parameter id that stands before the function command word; which one real meters use is not known.</source>
        <translation>İşlev komut sözcüğünün önünde duran parametre kimliği; gerçek sayaçların hangisini kullandığı bilinmiyor.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The port then speaks TLS only, or no TLS at all. Without the right certificate the meter cannot be reached any more.</source>
        <translation>Port artık ya yalnızca TLS konuşur ya da hiç konuşmaz. Doğru sertifika olmadan sayaca bir daha ulaşılamaz.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The protocol has no command that sets the clock of a gateway; one that is off is a case for its maker.</source>
        <translation>Protokolde ağ geçidinin saatini ayarlayan komut yok; sapmış saat üreticisinin işidir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds three voltages</source>
        <translation>Readout üç gerilim içerir</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout holds voltages</source>
        <translation>Readout gerilimleri içerir</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The readout is cut</source>
        <translation>Readout kesik</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>The reference head-end ignores what a dashboard sends.</source>
        <translation>Referans merkez sistem, bir panonun gönderdiklerini yok sayar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>The register is read before and after. Turkish meters lock writing for 6 h after three wrong passwords.</source>
        <translation>Register öncesinde ve sonrasında okunur. Türk sayaçları üç yanlış paroladan sonra yazmayı 6 sa kilitler.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The running transaction, else the last; or one by its id or number.</source>
        <translation>Süren işlem, yoksa sonuncu; ya da kimliği veya numarasıyla biri.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same meter answers, and its register has not gone backwards.</source>
        <translation>Aynı sayaç yanıt veriyor ve registeri geriye gitmedi.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The same module answers.</source>
        <translation>Aynı modül yanıt verir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the meter has to be ready and idle.</source>
        <translation>Seri numarası bu cihaz için girilenle aynı, sayaç hazır ve boşta olmalıdır.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device, and the readout whole.</source>
        <translation type="vanished">Seri numarası bu cihaz için girilenle aynı, readout tam olmalıdır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device, and the readout whole. The next steps judge what it holds; one of them that is done again reads it anew.</source>
        <translation>Seri numarası bu cihaz için girilenle aynı, readout tam olmalıdır. Sonraki adımlar içindekileri değerlendirir; yeniden yapılan adım onu yeniden okur.</translation>
    </message>
    <message>
        <source>The serial number has to be the one that is entered for this device.</source>
        <translation type="vanished">Seri numarası bu cihaz için girilenle aynı olmalıdır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The serial number has to be the one that is entered for this device. The next steps judge what was read here; one of them that is done again reads it anew.</source>
        <translation>Seri numarası bu cihaz için girilenle aynı olmalıdır. Sonraki adımlar burada okunanı değerlendirir; yeniden yapılan adım onu yeniden okur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>The service signs its events with it. May be empty only while listening on this computer alone.</source>
        <translation>Hizmet olaylarını bununla imzalar. Yalnızca bu bilgisayarda dinlenirken boş olabilir.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The session is closed, and the same meter answers a new sign-on.</source>
        <translation>Oturum kapatılır ve aynı sayaç yeni bir oturum açmaya yanıt verir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware loses two frames that arrive in one read.</source>
        <translation>Fabrika yazılımı tek okumada gelen iki çerçeveyi kaybeder.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>The stock firmware takes an orderly close for data: it spins at full load and never connects again until it is restarted. Close with a reset (DROP_MODULE) unless that is what you test.</source>
        <translation>Fabrika yazılımı düzenli kapatmayı veri sanır: tam yükte döner ve yeniden başlatılana kadar bir daha bağlanmaz. Test ettiğiniz bu değilse sıfırlamayla kapatın (DROP_MODULE).</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched off.</source>
        <translation>Bu sayacın arkasındaki enerji kapatılır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The supply behind this meter is switched on.</source>
        <translation>Bu sayacın arkasındaki enerji açılır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The supply went off and on again</source>
        <translation>Enerji kesildi ve yeniden geldi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time is sent as it is entered here: every wait and every retry makes it late.</source>
        <translation>Saat buraya girildiği gibi gönderilir: her bekleme ve her yeniden deneme onu geciktirir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The time of day at the grid.</source>
        <translation>Şebekedeki günün saati.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction after two minutes</source>
        <translation>İki dakika sonra işlem</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction ends for good and its record is signed.</source>
        <translation>İşlem kesin olarak biter ve kaydı imzalanır.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>The transaction ends for good.</source>
        <translation>İşlem kesin olarak biter.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>The transaction is running</source>
        <translation>İşlem sürüyor</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>The vendor counts every token for credit as a sale.</source>
        <translation>Üretici, krediye ait her jetonu satış sayar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Then it is broken off.</source>
        <translation>Sonra yarıda kesilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Then the association ends, so that others may read the meter.</source>
        <translation>Sonra ilişki biter; başkaları sayacı okuyabilir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Third</source>
        <translation>Üçüncü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>This certificate is pinned</source>
        <translation>Bu sertifika sabitlendi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>This computer&apos;s address that the device reaches; 127.0.0.1 takes local ones only. All devices with the same address and port share one hub.</source>
        <translation>Cihazın ulaştığı bu bilgisayarın adresi; 127.0.0.1 yalnızca yerel olanları alır. Aynı adres ve porttaki tüm cihazlar bir hub&apos;ı paylaşır.</translation>
    </message>
    <message>
        <location filename="../../adapter iec62056"/>
        <source>This connection only listens; choose another mode in it.</source>
        <translation>Bu bağlantı yalnızca dinler; bağlantıda başka bir mod seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the meter; choose a role that has it.</source>
        <translation>Bu bağlantı sayacı canlandırır; bunu yapabilen bir rol seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module between TCP and a line; choose a role that has it.</source>
        <translation>Bu bağlantı TCP ile bir hat arasındaki modülü canlandırır; bunu yapabilen bir rol seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the module; choose a role that has it.</source>
        <translation>Bu bağlantı modülü canlandırır; bunu yapabilen bir rol seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a module below this server.</source>
        <translation>Bu bağlantı sunucuyu canlandırır; bu sunucunun altındaki bir modülü seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter quecpython"/>
        <source>This connection plays the server; choose a role that has it.</source>
        <translation>Bu bağlantı sunucuyu canlandırır; bunu yapabilen bir rol seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-v1"/>
        <source>This is a concentrator; only its state is watched.</source>
        <translation>Bu bir konsantratör; yalnızca durumu izlenir.</translation>
    </message>
    <message>
        <location filename="../../adapter aviora"/>
        <source>This is a gateway; choose one of its meters in the tree.</source>
        <translation>Bu bir ağ geçidi; ağaçtan sayaçlarından birini seçin.</translation>
    </message>
    <message>
        <location filename="../../adapter calin-lorawan"/>
        <source>This is a gateway; only its state is watched.</source>
        <translation>Bu bir ağ geçidi; yalnızca durumu izlenir.</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>This is a head-end; it does no command of a meter.</source>
        <translation>Bu bir merkez sistem; sayaç komutlarını yapmaz.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter cannot limit the power; the charger does.</source>
        <translation>Bu sayaç gücü sınırlayamaz; şarj cihazı sınırlar.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter holds no credit.</source>
        <translation>Bu sayaç kredi tutmaz.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>This meter measures and signs; it has no relay. The charger switches the power.</source>
        <translation>Bu sayaç ölçer ve imzalar; rölesi yoktur. Gücü şarj cihazı açıp kapatır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>This service also sets the meter&apos;s clock to midnight (00:00:00).</source>
        <translation>Bu hizmet sayacın saatini de gece yarısına (00:00:00) ayarlar.</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Three accounts at the vendor&apos;s service.</source>
        <translation>Üretici hizmetinde üç hesap.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Three cycles of the device at least.</source>
        <translation>Cihazın en az üç çevrimi.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Three letters.</source>
        <translation>Üç harf.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Three phases</source>
        <translation>Üç faz</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Through ChirpStack, with an API token.</source>
        <translation>ChirpStack üzerinden, API belirteciyle.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Thursday</source>
        <translation>Perşembe</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time after</source>
        <translation>Sonraki zaman</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time before</source>
        <translation>Önceki zaman</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between live values</source>
        <translation>Canlı değerler arası süre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time between them</source>
        <translation>Aralarındaki süre</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time of the meter</source>
        <translation>Sayacın zamanı</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Time of the reset</source>
        <translation>Sıfırlama zamanı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Time status</source>
        <translation>Zaman durumu</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Time zone</source>
        <translation>Saat dilimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Time zone of the meter</source>
        <translation>Sayacın saat dilimi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Times</source>
        <translation>Zamanlama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>To</source>
        <translation>Bitiş</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>To the head-end and back</source>
        <translation>Merkez sisteme gidiş ve dönüş</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>To the meter through the module, in writes of at most the set size: one write is one frame there.</source>
        <translation>Modül üzerinden sayaca, en çok ayarlanan boyutta yazmalarla: bir yazma orada bir çerçevedir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Token</source>
        <translation>Jeton</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of the device</source>
        <translation>Cihazın erişim belirteci</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Token of this dashboard</source>
        <translation>Bu panonun erişim belirteci</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Token plugin</source>
        <translation>Jeton eklentisi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Token service</source>
        <translation>Jeton hizmeti</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up</source>
        <translation>Kredi yükle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Top up {device}</source>
        <translation>Kredi yükle: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Transaction</source>
        <translation>İşlem</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to connect, beyond the first</source>
        <translation>İlkinden sonraki bağlantı denemeleri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Tries to start or stop, beyond the first</source>
        <translation>İlkinden sonraki başlatma veya durdurma denemeleri</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Trust in the key</source>
        <translation>Anahtara güven</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Trusted certificate</source>
        <translation>Güvenilen sertifika</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Try the usual rates and formats, two times each; what works is entered in the connection.</source>
        <translation>Olağan hızları ve biçimleri ikişer kez dener; çalışan bağlantıya girilir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Tuesday</source>
        <translation>Salı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish (R2, W2)</source>
        <translation>Türk (R2, W2)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 2</source>
        <translation>Türk 2. nesil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Turkish generation 3</source>
        <translation>Türk 3. nesil</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off</source>
        <translation>Enerjiyi kapat</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn off {device}</source>
        <translation>Enerjiyi kapat: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on</source>
        <translation>Enerjiyi aç</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Turn on {device}</source>
        <translation>Enerjiyi aç: {device}</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Two frames in one write</source>
        <translation>Tek yazmada iki çerçeve</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Two frames in one write. The stock firmware loses both.</source>
        <translation>Tek yazmada iki çerçeve. Fabrika yazılımı ikisini de kaybeder.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Type</source>
        <translation>Tür</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Type of its parameter</source>
        <translation>Parametresinin türü</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>U(L2) lags U(L1) by 120° and U(L3) by 240° where the field turns clockwise; 240° and 120° are two phases swapped.</source>
        <translation>Alan saat yönünde dönüyorsa U(L2), U(L1)&apos;den 120°, U(L3) 240° geridedir; 240° ve 120° iki fazın yer değiştirdiğini gösterir.</translation>
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
        <translation>UTC eksi yerel saat (standart)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for MQTT and for registering meters.</source>
        <translation>UUID; MQTT ve sayaçları kaydettirmek için gerekli.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for registering meters.</source>
        <translation>UUID; sayaçları kaydettirmek için gerekli.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>UUID; needed for the gateways&apos; state when the API token belongs to a tenant.</source>
        <translation>UUID; API belirteci bir kiracıya aitse ağ geçitlerinin durumu için gerekli.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>UV</source>
        <translation>UV</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Until the first character of an answer.</source>
        <translation>Yanıtın ilk karakterine kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Unverified on hardware; on and off from a credit read are safe either way.</source>
        <translation>Donanımda doğrulanmadı; kredi okumasından gelen açık ve kapalı her iki durumda güvenlidir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Up to 15 characters, as on the meter.</source>
        <translation>Sayacın üzerindeki gibi, en çok 15 karakter.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Up to 250 characters; only newer firmware (v2) takes it.</source>
        <translation>En çok 250 karakter; yalnızca yeni aygıt yazılımı (v2) alır.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 300 W.</source>
        <translation>Belgelenmiş 300 W sınırına kadar.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Up to the documented limit of 700 W.</source>
        <translation>Belgelenmiş 700 W sınırına kadar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update firmware</source>
        <translation>Aygıt yazılımını güncelle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Update {device}</source>
        <translation>Güncelle: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for maintenance</source>
        <translation>Bakım için kullanıcı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for sales</source>
        <translation>Satışlar için kullanıcı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_api.py"/>
        <source>User for tasks</source>
        <translation>Görevler için kullanıcı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>VDEW (R5, W5)</source>
        <translation>VDEW (R5, W5)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>Valid for</source>
        <translation>Geçerlilik süresi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid from</source>
        <translation>Geçerlilik başlangıcı</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Valid until</source>
        <translation>Geçerlilik bitişi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Voltage</source>
        <translation>Gerilim</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L1</source>
        <translation>Gerilim L1</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L2</source>
        <translation>Gerilim L2</translation>
    </message>
    <message>
        <location filename="../../app/protocols/obis.py"/>
        <source>Voltage L3</source>
        <translation>Gerilim L3</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage by your own instrument</source>
        <translation>Kendi ölçü aletinizle gerilim</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of each phase</source>
        <translation>Her fazın gerilimi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase A</source>
        <translation>A fazının gerilimi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase B</source>
        <translation>B fazının gerilimi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage of phase C</source>
        <translation>C fazının gerilimi</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltage reversed</source>
        <translation>Gerilim ters</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages</source>
        <translation>Gerilimler</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Voltages of the other phases</source>
        <translation>Diğer fazların gerilimleri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait</source>
        <translation>Bekle</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a late result</source>
        <translation>Geç sonuç bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a load profile</source>
        <translation>Yük profili bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for a message</source>
        <translation>İleti bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Wait for a readout</source>
        <translation>Readout bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Wait for an answer</source>
        <translation>Yanıt bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wait for data</source>
        <translation>Veri bekleme süresi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Wake-up</source>
        <translation>Uyandırma</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>Warn from</source>
        <translation>Uyarı düzeyi</translation>
    </message>
    <message>
        <location filename="../../app/finding/kinds.py"/>
        <source>Watched as a dashboard does, by address and token.</source>
        <translation>Bir pano gibi, adres ve erişim belirteciyle izlenir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>Webhook secret</source>
        <translation>Webhook gizli anahtarı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/calin_lorawan.py"/>
        <source>Webhook token</source>
        <translation>Webhook belirteci</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>Wednesday</source>
        <translation>Çarşamba</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What E2 does is up to the manufacturer; it may reset the meter.</source>
        <translation>E2&apos;nin ne yaptığı üreticiye bağlıdır; sayacı sıfırlayabilir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What ends every conversation.</source>
        <translation>Her görüşmeyi bitiren.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What happens between the two sides.</source>
        <translation>İki taraf arasında olanlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What is said of a parameter that does not stand in the answers.</source>
        <translation>Yanıtlarda bulunmayan bir parametre için söylenen.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>What stands in the brackets of the request; mostly nothing.</source>
        <translation>İsteğin ayraçları içindeki; çoğunlukla hiçbir şey.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>What the customer has bought and not used is lost.</source>
        <translation>Müşterinin satın alıp kullanmadığı kredi kaybolur.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>What the meter holds, and what may be read.</source>
        <translation>Sayaçta nelerin bulunduğu ve nelerin okunabileceği.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_device_messaging_rules.py"/>
        <source>What the service counts: queues, finished commands, events, and what it ignored.</source>
        <translation>Hizmetin saydıkları: kuyruklar, biten komutlar, olaylar ve yok sayılanlar.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>What the stock firmware does is quectel.</source>
        <translation>Fabrika yazılımının yaptığı quectel&apos;dir.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Whatever stands there is sent, right or wrong.</source>
        <translation>Orada ne varsa gönderilir, doğru ya da yanlış.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where it is off, start again with setting the clock allowed, or set it by hand and do the step again.</source>
        <translation>Sapmışsa saati ayarlama izniyle yeniden başlatın veya elle ayarlayıp adımı yeniden yapın.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Where this fails, compare the fingerprint, switch TLS on with the command Switch TLS, pin the certificate in the connection, and do the step again. This flow does not switch TLS by itself.</source>
        <translation>Bu başarısız olursa parmak izini karşılaştırın, TLS&apos;yi aç/kapat komutuyla TLS&apos;yi açın, sertifikayı bağlantıda sabitleyin ve adımı yeniden yapın. Bu akış TLS&apos;yi kendiliğinden açıp kapatmaz.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>Whether the gateway keeps what it has told once is up to its storage.</source>
        <translation>Ağ geçidinin bir kez bildirdiğini saklayıp saklamadığı depolama alanına bağlıdır.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who is connected, with counters.</source>
        <translation>Kimin bağlı olduğu, sayaçlarıyla.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>Who the module is, its signal, its access point and, where it is wanted, the way to the head-end and back. For a connection with the role Meter. Stock firmware does not answer on channels 23 and 24: it fails at the first step.</source>
        <translation>Modülün kimliği, sinyali, erişim noktası ve istenirse merkez sisteme gidip dönen yol. Sayaç rolündeki bir bağlantı için. Fabrika yazılımı 23 ve 24 numaralı kanallarda yanıt vermez: ilk adımda başarısız olur.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Who the program plays on the link.</source>
        <translation>Programın bağlantıda üstlendiği rol.</translation>
    </message>
    <message>
        <location filename="../../app/protocols/ems.py"/>
        <source>Wi-Fi strength</source>
        <translation>Wi-Fi gücü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>With * every directive on the gateway is deleted.</source>
        <translation>* ile ağ geçidindeki her yönerge silinir.</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>With a zone; empty: this computer&apos;s time now.</source>
        <translation>Saat dilimiyle; boş: bu bilgisayarın şimdiki saati.</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>With a zone; empty: this computer&apos;s time when it is sent.</source>
        <translation>Saat dilimiyle; boş: gönderildiği anda bu bilgisayarın saati.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the antenna and the cabinet as they stay: close the door before.</source>
        <translation>Anten ve pano kalacağı durumdayken: önce kapağı kapatın.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>With the meter&apos;s own certificate pinned in the connection.</source>
        <translation>Bağlantıda sabitlenmiş, sayacın kendi sertifikasıyla.</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>Wrapper (TCP)</source>
        <translation>Wrapper (TCP)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>Write attribute</source>
        <translation>Özniteliği yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write meter parameter</source>
        <translation>Sayaç parametresini yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>Write module parameter</source>
        <translation>Modül parametresini yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write register</source>
        <translation>Registere yaz</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write to {device}</source>
        <translation>Yaz: {device}</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>Write with</source>
        <translation>Yazma komutu</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>Year</source>
        <translation>Yıl</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>addresses of hosts and network cards</source>
        <translation>bilgisayar ve ağ kartı adresleri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>after a sign-on at 300 Bd (mode E)</source>
        <translation>300 Bd&apos;de oturum açtıktan sonra (mod E)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>as short as possible</source>
        <translation>olabildiğince kısa</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the connection</source>
        <translation>bağlantıdaki gibi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as the meter says</source>
        <translation>sayacın söylediği gibi</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>as the parameter has it, else STR</source>
        <translation>parametrede olduğu gibi, yoksa STR</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>as usual</source>
        <translation>olağan</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>at once</source>
        <translation>hemen</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>auto: begin with quectel and follow the peer</source>
        <translation>auto: quectel ile başla ve karşı tarafa uy</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>battery meter</source>
        <translation>pilli sayaç</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>by service (glo)</source>
        <translation>hizmete göre (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>by the meter</source>
        <translation>sayaca göre</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>changed parameters (P.99)</source>
        <translation>değişen parametreler (P.99)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>customer and order references</source>
        <translation>müşteri ve sipariş referansları</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>data</source>
        <translation>veri</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>date-time (19)</source>
        <translation>tarih-saat (19)</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>demand register</source>
        <translation>demant registeri</translation>
    </message>
    <message>
        <location filename="../../adapter device-messaging"/>
        <source>enter its plugin at the head-end (attribute plugin), for example calin-chirpstack</source>
        <translation>merkez sistemdeki eklentisini girin (öznitelik plugin), örneğin calin-chirpstack</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>essential (HPS)</source>
        <translation>temel (HPS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>events (P.98)</source>
        <translation>olaylar (P.98)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>everything</source>
        <translation>tümü</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>extended register</source>
        <translation>genişletilmiş register</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>find out</source>
        <translation>kendin bul</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>for writes only</source>
        <translation>yalnızca yazmada</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_aviora_rules.py"/>
        <source>ftp://user:password@192.168.1.5:21/path/file.bin</source>
        <translation>ftp://user:password@192.168.1.5:21/path/file.bin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>full (FS)</source>
        <translation>tam (FS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>general (glo)</source>
        <translation>genel (glo)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>half a frame</source>
        <translation>yarım çerçeve</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>heat meter (UH50, T550)</source>
        <translation>ısı sayacı (UH50, T550)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>history</source>
        <translation>geçmiş</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>keys</source>
        <translation>anahtarlar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>local time minus UTC</source>
        <translation>yerel saat eksi UTC</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>manufacturer&apos;s own (HLS, mechanism 2)</source>
        <translation>üreticiye özgü (HLS, mekanizma 2)</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of devices and people</source>
        <translation>cihaz ve kişi adları</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>names of sites and grids, and other places</source>
        <translation>saha ve şebeke adları ve diğer yerler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>national practice</source>
        <translation>ulusal uygulama</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>no closing flag</source>
        <translation>kapanış bayrağı yok</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>one</source>
        <translation>bir</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>outages</source>
        <translation>kesintiler</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_dlms_rules.py"/>
        <source>password (LLS)</source>
        <translation>parola (LLS)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>power quality</source>
        <translation>güç kalitesi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>public domain</source>
        <translation>kamu malı</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>quectel: length, no stuffing, FCS high octet first</source>
        <translation>quectel: uzunluk, dolgulama yok, FCS yüksek oktet önce</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw text</source>
        <translation>ham metin</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>raw, in hex</source>
        <translation>ham, onaltılık</translation>
    </message>
    <message>
        <location filename="../../adapter dlms"/>
        <source>register</source>
        <translation>register</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>rfc1662: octet stuffing, FCS low octet first</source>
        <translation>rfc1662: oktet dolgulama, FCS düşük oktet önce</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/about.py"/>
        <source>see its text</source>
        <translation>metnine bakın</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>serial numbers of meters, modules and SIM cards</source>
        <translation>sayaç, modül ve SIM kart seri numaraları</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>short readout</source>
        <translation>kısa readout</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard</source>
        <translation>standart</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>standard (R1, W1)</source>
        <translation>standart (R1, W1)</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>the port</source>
        <translation>port</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_calin_rules.py"/>
        <source>three</source>
        <translation>üç</translation>
    </message>
    <message>
        <location filename="../../app/interaction_log/pseudonyms.py"/>
        <source>tokens of 20 digits</source>
        <translation>20 rakamlı jetonlar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two GET requests</source>
        <translation>iki GET isteği</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>two transparent payloads</source>
        <translation>iki saydam veri yükü</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_iec62056_rules.py"/>
        <source>warnings</source>
        <translation>uyarılar</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong FCS</source>
        <translation>yanlış FCS</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_quecpython_rules.py"/>
        <source>wrong length</source>
        <translation>yanlış uzunluk</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>ws://host:port or wss://host:port, without user and query.</source>
        <translation>ws://host:port veya wss://host:port, kullanıcı ve sorgu olmadan.</translation>
    </message>
    <message>
        <location filename="../../resources/flows"/>
        <source>{device.name} says {fact.state} in mode {fact.mode}. Which battery voltage do its live values show?</source>
        <translation>{device.name}: durum {fact.state}, mod {fact.mode}. Canlı değerleri hangi batarya gerilimini gösteriyor?</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_ems_rules.py"/>
        <source>{device_id} stands for the device; some head-ends want /ws/device/{device_id}.</source>
        <translation>{device_id} cihazın yerine geçer; bazı merkez sistemler /ws/device/{device_id} ister.</translation>
    </message>
    <message>
        <location filename="../../ui/model_words.py"/>
        <source>{what}, tariff {number}</source>
        <translation>{what}, tarife {number}</translation>
    </message>
    <message>
        <location filename="../../adapter lem-dcbm"/>
        <source>±HH:MM from -11:00 to +14:00</source>
        <translation>±HH:MM, -11:00 ile +14:00 arası</translation>
    </message>
    <message>
        <location filename="../../app/adapters/_lem_rules.py"/>
        <source>±HH:MM from -11:00 to +14:00; empty: the meter&apos;s own setting stays as it is.</source>
        <translation>±HH:MM, -11:00 ile +14:00 arası; boş: sayacın kendi ayarı olduğu gibi kalır.</translation>
    </message>
</context>
<context>
    <name>NoteDialog</name>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add a note</source>
        <translation>Not ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Add the note</source>
        <translation>Notu ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave as it was</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Leave without adding</source>
        <translation>Eklemeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note</source>
        <translation>Not</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must be at most {most} characters, not {count}.</source>
        <translation>Not en çok {most} karakter olabilir, {count} değil.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Note must not be empty.</source>
        <translation>Not boş olamaz.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Remove the note</source>
        <translation>Notu kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Save the note</source>
        <translation>Notu kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Still needed: a text.</source>
        <translation>Hâlâ gerekli: bir metin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/note.py"/>
        <source>What you saw or did. Ctrl+Enter keeps it.</source>
        <translation>Gördüğünüz veya yaptığınız. Ctrl+Enter kaydeder.</translation>
    </message>
</context>
<context>
    <name>NoticeBar</name>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Dismiss</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/main_window.py"/>
        <source>Notice</source>
        <translation>Bildirim</translation>
    </message>
</context>
<context>
    <name>Objects</name>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active absolute</source>
        <translation>Aktif mutlak</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active export</source>
        <translation>Aktif veriş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active import</source>
        <translation>Aktif çekiş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Active net</source>
        <translation>Aktif net</translation>
    </message>
    <message>
        <source>Active {what}</source>
        <translation type="vanished">Aktif {what}</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Angles</source>
        <translation>Açılar</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent export</source>
        <translation>Görünür veriş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Apparent import</source>
        <translation>Görünür çekiş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Association</source>
        <translation>İlişki (association)</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Clock</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cold water</source>
        <translation>Soğuk su</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Cooling</source>
        <translation>Soğutma</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Country specific</source>
        <translation>Ülkeye özgü</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Errors</source>
        <translation>Hatalar</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Firmware image</source>
        <translation>Aygıt yazılımı imajı</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Gas</source>
        <translation>Gaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General</source>
        <translation>Genel</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>General and identification</source>
        <translation>Genel ve tanıtım</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>HDLC setup</source>
        <translation>HDLC ayarları</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat</source>
        <translation>Isı</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Heat cost allocator</source>
        <translation>Isı pay ölçer</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Hot water</source>
        <translation>Sıcak su</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Limiter</source>
        <translation>Sınırlayıcı</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Lists</source>
        <translation>Listeler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Logical device name</source>
        <translation>Mantıksal cihaz adı</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Modem</source>
        <translation>Modem</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Optical port</source>
        <translation>Optik port</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other medium</source>
        <translation>Diğer ortam</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Other names</source>
        <translation>Diğer adlar</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles</source>
        <translation>Profiller</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Profiles and logs</source>
        <translation>Profiller ve günlükler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive export</source>
        <translation>Reaktif veriş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive import</source>
        <translation>Reaktif çekiş</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant I</source>
        <translation>Reaktif kadran I</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant II</source>
        <translation>Reaktif kadran II</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant III</source>
        <translation>Reaktif kadran III</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Reactive quadrant IV</source>
        <translation>Reaktif kadran IV</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register activation</source>
        <translation>Register etkinleştirme</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Register monitoring</source>
        <translation>Register izleme</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>SAP assignment</source>
        <translation>SAP ataması</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Schedule</source>
        <translation>Zamanlama</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Scripts</source>
        <translation>Betikler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Security</source>
        <translation>Güvenlik</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Service entries</source>
        <translation>Servis girdileri</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Single actions</source>
        <translation>Tekil eylemler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Special days</source>
        <translation>Özel günler</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Standard readouts</source>
        <translation>Standart readout</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>TCP, IP and network setup</source>
        <translation>TCP, IP ve ağ ayarları</translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>Tariff calendar</source>
        <translation>Tarife takvimi</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/objects.py"/>
        <source>{count} entries</source>
        <translation>
            <numerusform>{count} girdi</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/objects.py"/>
        <source>{what} without a known name</source>
        <translation>bilinen adı olmayan {what}</translation>
    </message>
</context>
<context>
    <name>ObjectsPanel</name>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By OBIS code</source>
        <translation>OBIS koduna göre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>By class</source>
        <translation>Sınıfa göre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Choose an attribute to read it.</source>
        <translation>Okumak için bir öznitelik seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Class or access</source>
        <translation>Sınıf veya erişim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Group the objects by</source>
        <translation>Nesneleri gruplama</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Looking for the object list of {name}…</source>
        <translation>{name} cihazının nesne listesi aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>No meter chosen.
Choose one in the tree on the left to see its objects.</source>
        <translation>Sayaç seçilmedi.
Nesnelerini görmek için soldaki ağaçtan bir sayaç seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Not read yet. Double-click the attribute, or press Read.</source>
        <translation>Henüz okunmadı. Özniteliğe çift tıklayın veya Oku düğmesine basın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Hiçbir şey gönderilmedi. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects</source>
        <translation>Nesneler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Objects of the meter</source>
        <translation>Sayacın nesneleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Octets</source>
        <translation>Oktetler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read</source>
        <translation>Oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read at</source>
        <translation>Okunma zamanı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read list again</source>
        <translation>Listeyi yeniden oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Read object list</source>
        <translation>Nesne listesini oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Search objects</source>
        <translation>Nesne ara</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Show its command</source>
        <translation>Komutunu göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The meter does not let this client read this attribute.</source>
        <translation>Sayaç bu istemcinin bu özniteliği okumasına izin vermiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list could not be read. {why}</source>
        <translation>Nesne listesi okunamadı. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list is asked for already.</source>
        <translation>Nesne listesi zaten istendi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} has not been read yet.</source>
        <translation>{name} cihazının nesne listesi henüz okunmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>The object list of {name} is asked for: {status}. {why}</source>
        <translation>{name} cihazının nesne listesi istendi: {status}. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Type</source>
        <translation>Tür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>Value of the attribute</source>
        <translation>Özniteliğin değeri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>method {number}  {name}</source>
        <translation>metot {number}  {name}</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/panels/objects.py"/>
        <source>{count} objects, list of {time} {zone}</source>
        <translation>
            <numerusform>{count} nesne, {time} {zone} listesi</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{found} of {count} objects</source>
        <translation>{count} nesneden {found} tanesi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} has no object list. Meters that speak DLMS/COSEM have one.</source>
        <translation>{name} cihazının nesne listesi yok. DLMS/COSEM konuşan sayaçların nesne listesi vardır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name} told of no object. Read the list again, or connect with another client address.</source>
        <translation>{name} hiçbir nesne bildirmedi. Listeyi yeniden okuyun veya başka bir istemci adresiyle bağlanın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/objects.py"/>
        <source>{name}, version {version}</source>
        <translation>{name}, sürüm {version}</translation>
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
        <translation>Yapıldı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>It was not done</source>
        <translation>Yapılmadı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Leave it open</source>
        <translation>Açık bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>No read shows it. Look at the meter, then say what you see; it stays in the log.</source>
        <translation>Bunu gösteren bir okuma yok. Sayaca bakın ve gördüğünüzü belirtin; günlükte kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>Say what {device} shows</source>
        <translation>{device} ne gösteriyor, belirtin</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/outcome.py"/>
        <source>What the meter shows</source>
        <translation>Sayacın gösterdiği</translation>
    </message>
</context>
<context>
    <name>ParamField</name>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Choose…</source>
        <translation>Seç…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>Now</source>
        <translation>Şimdi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at least {low}{unit}</source>
        <translation>en az {low}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {count} bytes</source>
        <translation>en çok {count} bayt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>at most {high}{unit}</source>
        <translation>en çok {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>yes</source>
        <translation>evet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{low} to {high}{unit}</source>
        <translation>{low} – {high}{unit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>{title} (optional)</source>
        <translation>{title} (isteğe bağlı)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– choose –</source>
        <translation>– seçin –</translation>
    </message>
    <message>
        <location filename="../../ui/panels/command.py"/>
        <source>– none –</source>
        <translation>– yok –</translation>
    </message>
</context>
<context>
    <name>PersonsCheck</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A note is needed here: write what you saw.</source>
        <translation>Burada not gerekli: gördüğünüzü yazın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed here: drop it on this page, or choose its file.</source>
        <translation>Burada fotoğraf gerekli: bu sayfaya bırakın veya dosyasını seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo is needed: drop it here, or choose its file.</source>
        <translation>Bir fotoğraf gerekli: buraya bırakın veya dosyasını seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>A photo may help: drop it here, or choose its file.</source>
        <translation>Bir fotoğraf yararlı olabilir: buraya bırakın veya dosyasını seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo</source>
        <translation>Fotoğraf ekle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Add a photo…</source>
        <translation>Fotoğraf ekle…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer no</source>
        <translation>Hayır yanıtla</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Answer yes</source>
        <translation>Evet yanıtla</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Keep the answer</source>
        <translation>Yanıtı kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (needed)</source>
        <translation>Not (gerekli)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Note (optional)</source>
        <translation>Not (isteğe bağlı)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Pictures ({pattern})</source>
        <translation>Resimler ({pattern})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Remove the photo</source>
        <translation>Fotoğrafı kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{n} photos. Open one to see it large.</source>
        <translation>{n} fotoğraf. Büyük görmek için birini açın.</translation>
    </message>
</context>
<context>
    <name>PhasorDiagram</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor diagram</source>
        <translation>Fazör diyagramı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>inner ring {size} A</source>
        <translation>iç halka {size} A</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>outer ring {size} V</source>
        <translation>dış halka {size} V</translation>
    </message>
</context>
<context>
    <name>PhasorView</name>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Angle</source>
        <translation>Açı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Behind U1</source>
        <translation>U1&apos;e göre gecikme</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Phasor</source>
        <translation>Fazör</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>To its voltage</source>
        <translation>Gerilimine göre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>Values of the phasors</source>
        <translation>Fazörlerin değerleri</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/phasor.py"/>
        <source>What the phasors say</source>
        <translation>Fazörlerin söyledikleri</translation>
    </message>
</context>
<context>
    <name>Phasors</name>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No rotating field: the voltages are not 120° apart. Look at the wiring.</source>
        <translation>Döner alan yok: gerilimler arası açı 120° değil. Bağlantılara bakın.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>No voltage on {names}: nothing is drawn for it.</source>
        <translation>{names} üzerinde gerilim yok: onun için bir şey çizilmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not drawn, because the current or its angle is not in the readout: {names}.</source>
        <translation>Akımı veya açısı readout içinde olmadığı için çizilmedi: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Not in the readout: {names}.</source>
        <translation>Readout içinde yok: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>One phase only.</source>
        <translation>Yalnızca bir faz.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L2-L3 (right).</source>
        <translation>Döner alan L1-L2-L3 (sağ).</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Rotating field L1-L3-L2 (left): two phases are exchanged.</source>
        <translation>Döner alan L1-L3-L2 (sol): iki faz yer değiştirmiş.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The meter gives no angle between the voltages: 120° from phase to phase is assumed for {names}.</source>
        <translation>Sayaç gerilimler arası açı vermiyor: {names} için fazlar arası 120° varsayıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>The rotating field is not known: not all its angles were measured.</source>
        <translation>Döner alan bilinmiyor: açıların tümü ölçülmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>Whether the current lags or leads is not told for {names}: it is drawn lagging, as with motors and coils.</source>
        <translation>{names} için akımın geride mi ileride mi olduğu bildirilmiyor: motor ve bobinlerdeki gibi geride çizildi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>assumed 120°</source>
        <translation>varsayılan 120°</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>from the power factor</source>
        <translation>güç faktöründen</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>measured</source>
        <translation>ölçüldü</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>with U{n}</source>
        <translation>U{n} ile aynı</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° before U{n}</source>
        <translation>U{n} gerilimine göre {angle}° ileride</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U1</source>
        <translation>U1 gerilimine göre {angle}° geride</translation>
    </message>
    <message>
        <location filename="../../ui/models/phasor.py"/>
        <source>{angle}° behind U{n}</source>
        <translation>U{n} gerilimine göre {angle}° geride</translation>
    </message>
</context>
<context>
    <name>PictureList</name>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>Photos</source>
        <translation>Fotoğraflar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_check.py"/>
        <source>{name} cannot be shown here.</source>
        <translation>{name} burada gösterilemiyor.</translation>
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
        <translation>Başlayabilmesi için önce: {first}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Before it can start: {first} And {count} more.</source>
        <translation>Başlayabilmesi için önce: {first} Ve {count} tane daha.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Limits</source>
        <translation>Sınırlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One repeat</source>
        <translation>Bir tekrar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>One thing to know before the start</source>
        <translation>Başlamadan önce bilinmesi gereken bir şey</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Start the test</source>
        <translation>Testi başlat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>To know before the start</source>
        <translation>Başlamadan önce bilinmesi gerekenler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What is known of the reference</source>
        <translation>Referans hakkında bilinenler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>What to look at first</source>
        <translation>Önce bakılması gerekenler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{count} things to know before the start</source>
        <translation>Başlamadan önce bilinmesi gereken {count} şey</translation>
    </message>
</context>
<context>
    <name>PointsTable</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A copy of the chosen one, below it (Ctrl+Return).</source>
        <translation>Seçilinin bir kopyası, altına (Ctrl+Return).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Add load point</source>
        <translation>Yük noktası ekle</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points</source>
        <translation>Yük noktaları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Put back what was removed</source>
        <translation>Kaldırılanı geri koy</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Remove load point</source>
        <translation>Yük noktasını kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen ones (Del).</source>
        <translation>Seçili olanlar (Del).</translation>
    </message>
</context>
<context>
    <name>PortPicker</name>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>A port, or socket://host:port or rfc2217://host:port</source>
        <translation>Bir port veya socket://host:port ya da rfc2217://host:port</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>Looking for ports…</source>
        <translation>Portlar aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>No serial port is connected to this computer.</source>
        <translation>Bu bilgisayara bağlı seri port yok.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>The ports of this computer could not be listed. Type an address.</source>
        <translation>Bu bilgisayarın portları listelenemedi. Bir adres yazın.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (not plugged in)</source>
        <translation>{address}  (takılı değil)</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/port_picker.py"/>
        <source>{address}  (now {port})</source>
        <translation>{address}  (şimdi {port})</translation>
    </message>
</context>
<context>
    <name>ProfileChart</name>
    <message>
        <location filename="../../ui/widgets/profile_chart.py"/>
        <source>Curves of the load profile; the table holds the same values</source>
        <translation>Yük profilinin eğrileri; tabloda aynı değerler var</translation>
    </message>
</context>
<context>
    <name>ProfileModel</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Status</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no value of this channel for {time}.</source>
        <translation>Sayaç {time} için bu kanalın değerini göndermedi.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no values from {time} on for %n periods.</source>
        <translation>
            <numerusform>Sayaç {time} anından başlayarak %n dönem boyunca değer göndermedi.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time of the meter</source>
        <translation>Sayacın zamanı</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>gap</source>
        <translation>boşluk</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>gap: %n periods</source>
        <translation>
            <numerusform>boşluk: %n dönem</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>QrView</name>
    <message>
        <location filename="../../ui/wizard/qr.py"/>
        <source>QR code of {text}</source>
        <translation>{text} QR kodu</translation>
    </message>
</context>
<context>
    <name>QuantityPicker</name>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Quantity</source>
        <translation>Büyüklük</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{name} ({unit}), no value yet</source>
        <translation>{name} ({unit}), henüz değer yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>– choose –</source>
        <translation>– seçin –</translation>
    </message>
</context>
<context>
    <name>Question</name>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Do not send</source>
        <translation>Gönderme</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>Leave as it is</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>no</source>
        <translation>hayır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/confirm.py"/>
        <source>yes</source>
        <translation>evet</translation>
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
        <translation>A&apos;dan B&apos;ye: {0} – {1}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Visible: {0} to {1}.</source>
        <translation>Görünen: {0} – {1}.</translation>
    </message>
</context>
<context>
    <name>Reading</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Clock set</source>
        <translation>Saat ayarlandı</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Detection</source>
        <translation>Algılama</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile</source>
        <translation>Yük profili</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Load profile nobody waited for</source>
        <translation>Beklenmeyen yük profili</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Log of the device</source>
        <translation>Cihazın günlüğü</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout</source>
        <translation>Readout</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Readout nobody waited for</source>
        <translation>Beklenmeyen readout</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good if its character is the zero that gateways lose.</source>
        <translation>Karakteri, ağ geçitlerinin kaybettiği sıfırsa blok denetimi doğru.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good when the start character is counted, as some meters do.</source>
        <translation>Bazı sayaçların yaptığı gibi başlangıç karakteri de sayılınca blok denetimi doğru.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is good.</source>
        <translation>Blok denetimi doğru.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The block check is wrong: characters changed on the way. Read the meter again.</source>
        <translation>Blok denetimi yanlış: yolda karakterler değişmiş. Sayacı yeniden okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The end of the data block is missing, so nothing could be checked.</source>
        <translation>Veri bloğunun sonu eksik, bu yüzden hiçbir şey denetlenemedi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>The meter sent no block check, so changed characters would not be seen.</source>
        <translation>Sayaç blok denetimi göndermedi, değişen karakterler fark edilmezdi.</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>complete</source>
        <translation>tam</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>in doubt</source>
        <translation>şüpheli</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>incomplete</source>
        <translation>eksik</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} attempts</source>
        <translation>
            <numerusform>{count} deneme</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} lines</source>
        <translation>
            <numerusform>{count} satır</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} rows, {channels} channels</source>
        <translation>
            <numerusform>{count} satır, {channels} kanal</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/models/readings.py"/>
        <source>{count} values</source>
        <translation>
            <numerusform>{count} değer</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>ReadingBar</name>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Compare it</source>
        <translation>Karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How it was opened</source>
        <translation>Nasıl açıldığı</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>How {name} was opened</source>
        <translation>{name} nasıl açıldı</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Log open for reading</source>
        <translation>Günlük okumak için açıldı</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Open it as a workspace: its links open and its log grows.</source>
        <translation>Çalışma alanı olarak açar: bağlantıları açılır, günlüğü büyür.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>READ ONLY</source>
        <translation>SALT OKUNUR</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Replay it</source>
        <translation>Yeniden oynat</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>See what differs between this log and another one, or within it.</source>
        <translation>Bu günlük ile bir başkası arasındaki veya kendi içindeki farkları gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Watch this log again as if it were live.</source>
        <translation>Bu günlüğü canlıymış gibi yeniden izletir.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>Work with it…</source>
        <translation>Onunla çalış…</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}, as it stood at {time}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}, {time} anındaki haliyle. Hiçbir şey gönderilmez, içinde hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/reading_bar.py"/>
        <source>{name}. Nothing is sent, and nothing in it is changed.</source>
        <translation>{name}. Hiçbir şey gönderilmez, içinde hiçbir şey değiştirilmez.</translation>
    </message>
</context>
<context>
    <name>ReadingList</name>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Size</source>
        <translation>Boyut</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
</context>
<context>
    <name>ReadingsPanel</name>
    <message numerus="yes">
        <location filename="../../ui/panels/readings.py"/>
        <source>%n periods are missing</source>
        <translation>
            <numerusform>%n dönem eksik</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>As received</source>
        <translation>Alındığı gibi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts</source>
        <translation>Denemeler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Attempts of the detection</source>
        <translation>Algılama denemeleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Clock</source>
        <translation>Saat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Copy</source>
        <translation>Kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table</source>
        <translation>Tabloyu dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Export table…</source>
        <translation>Tabloyu dışa aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Exported to {file}.</source>
        <translation>{file} dosyasına aktarıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Identification {text}</source>
        <translation>Tanıtım {text}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Interaction {id} is not in this log.</source>
        <translation>Etkileşim {id} bu günlükte yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Load profile</source>
        <translation>Yük profili</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Looking for readings…</source>
        <translation>Okumalar aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings of {name} yet.
Send it a readout or a load profile.</source>
        <translation>{name} için henüz okuma yok.
Readout veya yük profili komutu gönderin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No readings yet.
Choose a meter in the tree, and send it a readout or a load profile.</source>
        <translation>Henüz okuma yok.
Ağaçtan bir sayaç seçin ve readout veya yük profili komutu gönderin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>No values have come yet. They appear here as soon as the meter has answered.</source>
        <translation>Henüz değer gelmedi. Sayaç yanıt verir vermez burada görünür.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Nothing was sent. {reason}</source>
        <translation>Hiçbir şey gönderilmedi. {reason}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One answer brought several load profiles</source>
        <translation>Tek yanıt birden çok yük profili getirdi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>One row every {minutes} min</source>
        <translation>Her {minutes} dakikada bir satır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Only a part arrived. Do not use these values; read the meter again.</source>
        <translation>Yalnızca bir bölümü geldi. Bu değerleri kullanmayın; sayacı yeniden okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Phasors</source>
        <translation>Fazörler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Reading interaction {id} from the log…</source>
        <translation>Günlükten etkileşim {id} okunuyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Readings</source>
        <translation>Okumalar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Saved as #{number}: the clock is being set.</source>
        <translation>#{number} olarak kaydedildi: saat ayarlanıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Search values</source>
        <translation>Değer ara</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Serial number {serial}</source>
        <translation>Seri numarası {serial}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show its command</source>
        <translation>Komutunu göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Show older readings</source>
        <translation>Eski okumaları göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Table (*.csv)</source>
        <translation>Tablo (*.csv)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Text as received</source>
        <translation>Alındığı gibi metin</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The device has written no log.</source>
        <translation>Cihaz günlük yazmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The selected rows, or all that are shown, to the clipboard</source>
        <translation>Seçili satırlar veya gösterilenlerin tümü, panoya</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>The text is not in the answer. The bytes stand with its command.</source>
        <translation>Metin yanıtta yok. Baytlar komutunun yanında durur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This device is no longer in the workspace.</source>
        <translation>Bu cihaz artık çalışma alanında değil.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>This result is {label}.</source>
        <translation>Bu sonuç: {label}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values</source>
        <translation>Değerler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Values of the readout</source>
        <translation>Readout değerleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Views of the reading</source>
        <translation>Okumanın görünümleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>Which load profile</source>
        <translation>Hangi yük profili</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} yazılamadı: {reason}. Başka bir klasör seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/readings.py"/>
        <source>{found} of {count} rows</source>
        <translation>{count} satırdan {found} tanesi</translation>
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
        <translation>Alındığı gibi</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Further groups</source>
        <translation>Diğer gruplar</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Unit</source>
        <translation>Birim</translation>
    </message>
    <message>
        <location filename="../../ui/models/readings.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
</context>
<context>
    <name>Reason</name>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>Earlier steps of its commissioning are not done yet.  Goes on when: They are.</source>
        <translation>Devreye almasının önceki adımları henüz tamam değil.  Sürme koşulu: Tamamlanmaları.</translation>
    </message>
    <message>
        <location filename="../../ui/reasons.py"/>
        <source>{cause}  Goes on when: {release}</source>
        <translation>{cause}  Sürme koşulu: {release}</translation>
    </message>
</context>
<context>
    <name>RecentFiles</name>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>&amp;Forget these files</source>
        <translation>Bu &amp;dosyaları unut</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>No file was opened yet</source>
        <translation>Henüz dosya açılmadı</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>Open {path}.</source>
        <translation>{path} dosyasını aç.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>The list is emptied; the files stay where they are.</source>
        <translation>Liste boşaltılır; dosyalar yerinde kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/recent.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   ({folder})</translation>
    </message>
</context>
<context>
    <name>RecordingList</name>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Curves</source>
        <translation>Eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Duration</source>
        <translation>Süre</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>End ({zone})</source>
        <translation>Bitiş ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remark</source>
        <translation>Açıklama</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start ({zone})</source>
        <translation>Başlangıç ({zone})</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>all</source>
        <translation>tümü</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>recording now</source>
        <translation>şimdi kaydediliyor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name}, recording now</source>
        <translation>{name}, şimdi kaydediliyor</translation>
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
        <translation>Kaydın bir adı olmalı; var olan adı kalır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Compare with it</source>
        <translation>Onunla karşılaştır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Export…</source>
        <translation>Dışa aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Go to</source>
        <translation>Git</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Name of the next recording</source>
        <translation>Sonraki kaydın adı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>No recordings yet. The log keeps every sample in any case; a recording gives a part of it a name, to find it again, to export it and to compare with it. Start recording when the test begins.</source>
        <translation>Henüz kayıt yok. Günlük her durumda her örneği saklar; kayıt ise bir bölümüne ad verir: yeniden bulmak, dışa aktarmak ve onunla karşılaştırmak için. Test başlarken kaydı başlatın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Only the curves on the chart</source>
        <translation>Yalnızca grafikteki eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recording {n}</source>
        <translation>Kayıt {n}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Recordings</source>
        <translation>Kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Remove</source>
        <translation>Kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Rename</source>
        <translation>Yeniden adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Start recording</source>
        <translation>Kaydı başlat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Stop recording</source>
        <translation>Kaydı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Undo</source>
        <translation>Geri al</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>What is exported and compared later; the log keeps every curve in any case.</source>
        <translation>Sonra dışa aktarılıp karşılaştırılanlar; günlük her durumda her eğriyi saklar.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>Write a remark</source>
        <translation>Açıklama yazın</translation>
    </message>
    <message>
        <location filename="../../ui/panels/recordings.py"/>
        <source>{name} was removed. Its samples stay in the log.</source>
        <translation>{name} kaldırıldı. Örnekleri günlükte kalır.</translation>
    </message>
</context>
<context>
    <name>RecordsPanel</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Billable: one begin, one end, no finding.</source>
        <translation>Faturalanabilir: bir başlangıç, bir bitiş, bulgu yok.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Cable</source>
        <translation>Kablo</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key inside the record.</source>
        <translation>Kaydın içindeki anahtarla denetlendi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key read from the meter.</source>
        <translation>Sayaçtan okunan anahtarla denetlendi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key stored at commissioning.</source>
        <translation>Devreye almada saklanan anahtarla denetlendi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Checked with the key typed above.</source>
        <translation>Yukarıya yazılan anahtarla denetlendi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Copy record</source>
        <translation>Kaydı kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Current</source>
        <translation>Akım</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy</source>
        <translation>Enerji</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Energy (kWh)</source>
        <translation>Enerji (kWh)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export</source>
        <translation>Veriş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record</source>
        <translation>Kaydı dışa aktar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Export record…</source>
        <translation>Kaydı dışa aktar…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Exported to {file}.</source>
        <translation>{file} dosyasına aktarıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Faults</source>
        <translation>Arızalar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Identification</source>
        <translation>Tanıtım</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Import</source>
        <translation>Çekiş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Intermediate record: it has no end reading and is not billable. Read the final record when the meter can be reached again.</source>
        <translation>Ara kayıt: bitiş okuması yok, faturalanamaz. Sayaca yeniden ulaşıldığında son kaydı okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Key printed on the meter: hexadecimal, base64 or PEM</source>
        <translation>Sayacın üzerinde basılı anahtar: onaltılık, base64 veya PEM</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Kind</source>
        <translation>Tür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Looking for signed records…</source>
        <translation>İmzalı kayıtlar aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Meter</source>
        <translation>Sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No key was used.</source>
        <translation>Anahtar kullanılmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>No signed records yet.
Stop a transaction, or read a record from a meter that signs.</source>
        <translation>Henüz imzalı kayıt yok.
Bir işlemi durdurun veya imzalayan bir sayaçtan kayıt okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Not billable, because:</source>
        <translation>Faturalanamaz, çünkü:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OBIS</source>
        <translation>OBIS</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>OCMF record (*.ocmf)</source>
        <translation>OCMF kaydı (*.ocmf)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Pagination</source>
        <translation>Sayfa numarası</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key</source>
        <translation>Açık anahtar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Public key printed on the meter</source>
        <translation>Sayacın üzerinde basılı açık anahtar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Readings</source>
        <translation>Okumalar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Record as received</source>
        <translation>Alındığı gibi kayıt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Show its command</source>
        <translation>Komutunu göster</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signature</source>
        <translation>İmza</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed record</source>
        <translation>İmzalı kayıt</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Signed records</source>
        <translation>İmzalı kayıtlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Tariff</source>
        <translation>Tarife</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Time in the record</source>
        <translation>Kayıttaki zaman</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Transaction</source>
        <translation>İşlem</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Unit</source>
        <translation>Birim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with the meter&apos;s key</source>
        <translation>Sayacın anahtarıyla doğrula</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>Verify with this key</source>
        <translation>Bu anahtarla doğrula</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>begin</source>
        <translation>başlangıç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>charging</source>
        <translation>şarj</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end</source>
        <translation>bitiş</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, abort</source>
        <translation>bitiş, iptal</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, local</source>
        <translation>bitiş, yerel</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, power failure</source>
        <translation>bitiş, enerji kesintisi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>end, remote</source>
        <translation>bitiş, uzaktan</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>exception</source>
        <translation>istisna</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>ok</source>
        <translation>tamam</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>suspended</source>
        <translation>askıya alındı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>tariff change</source>
        <translation>tarife değişimi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} yazılamadı: {reason}. Başka bir klasör seçin.</translation>
    </message>
</context>
<context>
    <name>ReferenceDialog</name>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Curves</source>
        <translation>&amp;Eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Device</source>
        <translation>&amp;Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Move it by hand</source>
        <translation>Elle k&amp;aydır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>&amp;Range</source>
        <translation>A&amp;ralık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>A CSV file with a column of times, or a workspace (*.mwk).</source>
        <translation>Zaman sütunu olan bir CSV dosyası veya bir çalışma alanı (*.mwk).</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>All of it</source>
        <translation>Tümü</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Begin at the left &amp;edge of the chart</source>
        <translation>Grafiğin &amp;sol kenarında başla</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Curves</source>
        <translation>Eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>File</source>
        <translation>Dosya</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From</source>
        <translation>Başlangıç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>From and to by hand</source>
        <translation>Başlangıç ve bitiş elle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Its times count from a start: there is no clock in them.</source>
        <translation>Zamanları bir başlangıçtan sayılıyor: içinde saat yok.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Leave without adding</source>
        <translation>Eklemeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>More than 0 is later.</source>
        <translation>0&apos;dan büyük daha geç demektir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Move it by</source>
        <translation>Kaydırma</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>On the chart from {first} to {last}.</source>
        <translation>Grafikte {first} – {last}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Put on the chart</source>
        <translation>Grafiğe koy</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Range</source>
        <translation>Aralık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples was stopped. Choose fewer curves or a shorter range.</source>
        <translation>Örneklerin okunması durduruldu. Daha az eğri veya daha kısa bir aralık seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading the samples…</source>
        <translation>Örnekler okunuyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name} was stopped. Choose another file.</source>
        <translation>{name} dosyasının okunması durduruldu. Başka bir dosya seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reading {name}…</source>
        <translation>{name} okunuyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Recording {name}, {start}</source>
        <translation>Kayıt {name}, {start}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Reference curves</source>
        <translation>Referans eğrileri</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stay at its &amp;own times</source>
        <translation>&amp;Kendi zamanlarında kal</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Still needed: {what}.</source>
        <translation>Hâlâ gerekli: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Stop reading</source>
        <translation>Okumayı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>That is the most of one curve: choose a later start for what follows.</source>
        <translation>Bir eğrinin üst sınırı bu: devamı için daha geç bir başlangıç seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>The file is being read</source>
        <translation>Dosya okunuyor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no file {path}. Choose another one.</source>
        <translation>{path} diye bir dosya yok. Başka bir dosya seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>There is no sample in this range. Choose another one.</source>
        <translation>Bu aralıkta örnek yok. Başka bir aralık seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Times that name no zone are</source>
        <translation>Dilimi belirtilmeyen zamanlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>To</source>
        <translation>Bitiş</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What was found in the file</source>
        <translation>Dosyada bulunanlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>What will be put on the chart</source>
        <translation>Grafiğe konacaklar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>Where it stands on the chart</source>
        <translation>Grafikte durduğu yer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a device</source>
        <translation>bir cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a file</source>
        <translation>bir dosya</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a number of seconds</source>
        <translation>saniye sayısı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>a range</source>
        <translation>bir aralık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>an end that is later than the start</source>
        <translation>başlangıçtan sonra bir bitiş</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>at least one curve</source>
        <translation>en az bir eğri</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>fewer curves: at most {most} at once</source>
        <translation>daha az eğri: aynı anda en çok {most}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in UTC</source>
        <translation>UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>in the zone of this computer</source>
        <translation>bu bilgisayarın saat diliminde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>no gap</source>
        <translation>boşluk yok</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>one gap</source>
        <translation>bir boşluk</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{count} gaps</source>
        <translation>{count} boşluk</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds no curve. Choose another file.</source>
        <translation>{name} eğri içermiyor. Başka bir dosya seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds one curve.</source>
        <translation>{name} bir eğri içeriyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of one device.</source>
        <translation>{name} bir cihazın {curves} eğrisini içeriyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name} holds {curves} curves of {devices} devices.</source>
        <translation>{name} {devices} cihazın {curves} eğrisini içeriyor.</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration} from {first}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {first} anından itibaren {duration} boyunca {count} örnek, {gaps}.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/reference.py"/>
        <source>{name}: {count} samples over {duration}, {gaps}.</source>
        <translation>
            <numerusform>{name}: {duration} boyunca {count} örnek, {gaps}.</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Replaced</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>addresses</source>
        <translation>adresler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>customers</source>
        <translation>müşteriler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>keys</source>
        <translation>anahtarlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>names</source>
        <translation>adlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>places</source>
        <translation>yerler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>serial numbers</source>
        <translation>seri numaraları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>tokens</source>
        <translation>jetonlar</translation>
    </message>
</context>
<context>
    <name>ReplacedPanel</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>&amp;Hide the originals</source>
        <translation>Özgünleri &amp;gizle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How much is replaced</source>
        <translation>Ne kadarının değiştirildiği</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Kind</source>
        <translation>Tür</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>On this screen only, for example while others look on.</source>
        <translation>Yalnızca bu ekranda, örneğin başkaları bakarken.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Original</source>
        <translation>Özgün</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Pseudonym</source>
        <translation>Takma ad</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search</source>
        <translation>Ara</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Search in what is replaced</source>
        <translation>Değiştirilenlerde ara</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Times</source>
        <translation>Kez</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What is replaced by what</source>
        <translation>Neyin neyle değiştirildiği</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} different words, {times} times</source>
        <translation>{n} farklı sözcük, {times} kez</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{shown} of {n} different words</source>
        <translation>{n} farklı sözcükten {shown} tanesi</translation>
    </message>
</context>
<context>
    <name>ReplayBar</name>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Begin again at the end of the recording.</source>
        <translation>Kaydın sonunda baştan başlar.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Enter another time of the recording to go there; Esc leaves it as it is.</source>
        <translation>Oraya gitmek için kaydın başka bir zamanını girin; Esc olduğu gibi bırakır.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on</source>
        <translation>Sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next bytes that moved, then hold.</source>
        <translation>Sonraki hareket eden baytlara kadar ilerleyip durur.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Go on to the next end of a command or the next report, then hold.</source>
        <translation>Bir komutun sonraki bitişine veya sonraki bildirime kadar ilerleyip durur.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Hold the recording, or go on.</source>
        <translation>Kaydı durdurur veya sürdürür.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>How much faster than it was recorded.</source>
        <translation>Kaydedildiğinden ne kadar hızlı.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Loop</source>
        <translation>Döngü</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next command</source>
        <translation>Sonraki komut</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Next frame</source>
        <translation>Sonraki çerçeve</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Nothing is sent to a meter while a log is replayed.</source>
        <translation>Günlük yeniden oynatılırken sayaca hiçbir şey gönderilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Pause</source>
        <translation>Duraklat</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Play again</source>
        <translation>Yeniden oynat</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Position in the recording</source>
        <translation>Kayıttaki konum</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>REPLAY</source>
        <translation>YENİDEN OYNATMA</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Replay controls</source>
        <translation>Yeniden oynatma denetimleri</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Speed</source>
        <translation>Hız</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>Time in the recording</source>
        <translation>Kayıttaki zaman</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>as fast as possible</source>
        <translation>olabildiğince hızlı</translation>
    </message>
    <message>
        <location filename="../../ui/replay_bar.py"/>
        <source>{n} times</source>
        <translation>{n} kat</translation>
    </message>
</context>
<context>
    <name>ReportSaver</name>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>HTML page</source>
        <translation>HTML sayfası</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>JSON</source>
        <translation>JSON</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>PDF, to print and sign</source>
        <translation>PDF, yazdırıp imzalamak için</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>Save the report</source>
        <translation>Raporu kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report was written to {file}.</source>
        <translation>Rapor {file} dosyasına yazıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/flow_report.py"/>
        <source>The report {name} is being written.</source>
        <translation>{name} raporu yazılıyor.</translation>
    </message>
</context>
<context>
    <name>ResultBox</name>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Result of the test</source>
        <translation>Testin sonucu</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>Stop the test</source>
        <translation>Testi durdur</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/result_box.py"/>
        <source>The test is under way</source>
        <translation>Test sürüyor</translation>
    </message>
</context>
<context>
    <name>ResultView</name>
    <message numerus="yes">
        <location filename="../../ui/panels/accuracy.py"/>
        <source>%n rows are on the clipboard.</source>
        <translation>
            <numerusform>%n satır panoda.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>A new test with the plan as it stands.</source>
        <translation>Şu anki planla yeni bir test.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>All files (*)</source>
        <translation>Tüm dosyalar (*)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Copy rows</source>
        <translation>Satırları kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Lines of the result</source>
        <translation>Sonucun satırları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure again</source>
        <translation>Yeniden ölç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Results that are kept</source>
        <translation>Saklanan sonuçlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as HTML…</source>
        <translation>HTML olarak kaydet…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save as JSON…</source>
        <translation>JSON olarak kaydet…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Save result</source>
        <translation>Sonucu kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Saved as {file}.</source>
        <translation>{file} olarak kaydedildi.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The chosen rows, or all (Ctrl+C).</source>
        <translation>Seçili satırlar veya tümü (Ctrl+C).</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{file} could not be written: {reason}. Choose another folder.</source>
        <translation>{file} yazılamadı: {reason}. Başka bir klasör seçin.</translation>
    </message>
</context>
<context>
    <name>Routes</name>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Can also be reached: {ways}</source>
        <translation>Ulaşılabilecek diğer yollar: {ways}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>Reached: {way}</source>
        <translation>Ulaşılan yol: {way}</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>directly</source>
        <translation>doğrudan</translation>
    </message>
    <message>
        <location filename="../../ui/routes.py"/>
        <source>through {gateway}</source>
        <translation>{gateway} üzerinden</translation>
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
        <translation>kesinti sonrası</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>all gateways down</source>
        <translation>tüm ağ geçitleri devre dışı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>behind suspended</source>
        <translation>duraklatılanın arkasında</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>capability</source>
        <translation>yetenek</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>device busy</source>
        <translation>cihaz meşgul</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>disconnected</source>
        <translation>enerjisi kesik</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>expired</source>
        <translation>süresi doldu</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>forbidden</source>
        <translation>yasak</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>foreign write</source>
        <translation>yabancı yazma</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>gateway down</source>
        <translation>ağ geçidi devre dışı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>grid down</source>
        <translation>şebeke enerjisiz</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>link down</source>
        <translation>bağlantı kopuk</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen</source>
        <translation>hiç görülmedi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>never seen, commissioning</source>
        <translation>hiç görülmedi, devreye alma</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>not seen recently</source>
        <translation>yakın zamanda görülmedi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>planned</source>
        <translation>planlandı</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>recovery grace</source>
        <translation>toparlanma süresi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>retry of a commissioning</source>
        <translation>devreye almanın yeni denemesi</translation>
    </message>
    <message>
        <location filename="../../ui/record_words.py"/>
        <source>unreachable</source>
        <translation>ulaşılamaz</translation>
    </message>
</context>
<context>
    <name>RunPage</name>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>A command that has left goes on and may still take effect. What was found stays kept.</source>
        <translation>Çıkmış bir komut sürer ve yine de etki edebilir. Bulunanlar saklanır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Answer: {answer}</source>
        <translation>Yanıt: {answer}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Ask again</source>
        <translation>Yeniden sor</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>By {who}.</source>
        <translation>Yapan: {who}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Checks of the step</source>
        <translation>Adımın denetimleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Commission {name} again</source>
        <translation>Yeniden devreye al: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Do all steps of the commissioning of {name} again?</source>
        <translation>{name} sayacının tüm devreye alma adımları yeniden yapılsın mı?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Flows and earlier runs</source>
        <translation>Akışlar ve önceki yürütmeler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Found</source>
        <translation>Bulunan</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it again…</source>
        <translation>Yeniden ver…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Give it now…</source>
        <translation>Şimdi ver…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with a warning</source>
        <translation>Uyarıyla sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Go on with the flow</source>
        <translation>Akışı sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interaction: {listed}</source>
        <translation>Etkileşim: {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Interactions: {listed}</source>
        <translation>Etkileşimler: {listed}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>It can be left out, with a reason:</source>
        <translation>Nedeni belirtilerek atlanabilir:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Let it go on</source>
        <translation>Sürsün</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>No.</source>
        <translation>No.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Note: {note}</source>
        <translation>Not: {note}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Or say why it need not pass:</source>
        <translation>Ya da neden geçmesi gerekmediğini yazın:</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Pause the flow</source>
        <translation>Akışı duraklat</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read again</source>
        <translation>Yeniden oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Read it back: {command}</source>
        <translation>Geri oku: {command}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason</source>
        <translation>Neden</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Reason, for the report</source>
        <translation>Neden, rapor için</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Run again…</source>
        <translation>Yeniden yürüt…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Save report…</source>
        <translation>Raporu kaydet…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Skip this step</source>
        <translation>Bu adımı atla</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Step</source>
        <translation>Adım</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Steps of the flow</source>
        <translation>Akışın adımları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow</source>
        <translation>Akışı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow on {name}</source>
        <translation>Akışı durdur: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop the flow…</source>
        <translation>Akışı durdur…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Stop {flow} on {name} before its end?</source>
        <translation>{name} üzerindeki {flow} bitmeden durdurulsun mu?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Tamper state, credit and power limit of the meter are overwritten once more.</source>
        <translation>Sayacın müdahale durumu, kredisi ve güç sınırı bir kez daha üzerine yazılır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Verdict</source>
        <translation>Karar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>Wanted</source>
        <translation>İstenen</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>began {time}, by {who}</source>
        <translation>başlangıç {time}, {who}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_run.py"/>
        <source>{flow} on {name}</source>
        <translation>{name}: {flow}</translation>
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
        <translation>Tüm yük noktaları ölçüldü.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off this load point</source>
        <translation>Bu yük noktasını yarıda kes</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Break off…</source>
        <translation>Yarıda kes…</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>End the test here</source>
        <translation>Testi burada bitir</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Go on measuring</source>
        <translation>Ölçmeyi sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Last values of the two meters</source>
        <translation>İki sayacın son değerleri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load point {number} of {count}: {name}</source>
        <translation>Yük noktası {number} / {count}: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Load points of this test</source>
        <translation>Bu testin yük noktaları</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measure this load point again</source>
        <translation>Bu yük noktasını yeniden ölç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Measuring. Leave the load as it is.</source>
        <translation>Ölçülüyor. Yükü olduğu gibi bırakın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Progress of the repeat</source>
        <translation>Tekrarın ilerlemesi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Reason for breaking off</source>
        <translation>Yarıda kesme nedeni</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {energy} of {target} Wh, {seconds}</source>
        <translation>Tekrar {repeat} / {repeats}: {energy} / {target} Wh, {seconds}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Repeat {repeat} of {repeats}: {seconds} of {target} s, {energy}</source>
        <translation>Tekrar {repeat} / {repeats}: {seconds} / {target} s, {energy}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Running error</source>
        <translation>Anlık hata</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Set the load to {name}, {power} W, and wait until it is steady. Then start measuring.</source>
        <translation>Yükü {name}, {power} W olarak ayarlayın ve kararlı olana kadar bekleyin. Sonra ölçümü başlatın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load is set: measure</source>
        <translation>Yük ayarlandı: ölç</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load points measured so far become the result.</source>
        <translation>Şimdiye kadar ölçülen yük noktaları sonuç olur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>The load settles for {waits} s, then the next value of both meters starts the measurement.</source>
        <translation>Yük {waits} s oturuyor, sonra iki sayacın bir sonraki değeri ölçümü başlatır.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>This load point was broken off: {reason}. Set the load again and measure it again.</source>
        <translation>Bu yük noktası yarıda kesildi: {reason}. Yükü yeniden ayarlayıp yeniden ölçün.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Waiting for the next value of both meters.</source>
        <translation>İki sayacın sonraki değeri bekleniyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>Why is it broken off?</source>
        <translation>Neden yarıda kesiliyor?</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>broken off by the person, no reason given</source>
        <translation>kişi tarafından yarıda kesildi, neden belirtilmedi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>limit ±{limit} %</source>
        <translation>sınır ±%{limit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no error yet   {limit}</source>
        <translation>henüz hata yok   {limit}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>no limit</source>
        <translation>sınır yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: no value yet</source>
        <translation>{role}: henüz değer yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/accuracy.py"/>
        <source>{role}: {value} ({age} s ago)</source>
        <translation>{role}: {value} ({age} s önce)</translation>
    </message>
</context>
<context>
    <name>SamplesModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time</source>
        <translation>Zaman</translation>
    </message>
</context>
<context>
    <name>SamplesView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>No samples here: show an earlier time, or connect the device.</source>
        <translation>Burada örnek yok: daha önceki bir zamanı gösterin veya cihazı bağlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>The newest {0:,} rows; narrow the range for earlier ones, or export it.</source>
        <translation>En yeni {0:,} satır; öncekiler için aralığı daraltın veya dışa aktarın.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0:,} rows.</source>
        <translation>{0:,} satır.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>{0} newer rows. Show them</source>
        <translation>{0} yeni satır. Göster</translation>
    </message>
</context>
<context>
    <name>SavedFilterBar</name>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Filters with a name</source>
        <translation>Adlı filtreler</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Leave</source>
        <translation>Vazgeç</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Name of this filter</source>
        <translation>Bu filtrenin adı</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>New name of {name}</source>
        <translation>{name} için yeni ad</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>No filter saved yet</source>
        <translation>Henüz kayıtlı filtre yok</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Nothing is filtered now.</source>
        <translation>Şu anda filtre yok.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Remove</source>
        <translation>Kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename</source>
        <translation>Yeniden adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Rename the filter</source>
        <translation>Filtreyi yeniden adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Replace {name}</source>
        <translation>{name} filtresini değiştir</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter</source>
        <translation>Filtreyi kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Save the filter in force…</source>
        <translation>Geçerli filtreyi kaydet…</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Saved</source>
        <translation>Kayıtlı</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filter is saved as {name}.</source>
        <translation>Filtre {name} adıyla kaydedildi.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>The filters could not be saved. {why}</source>
        <translation>Filtreler kaydedilemedi. {why}</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>Undo</source>
        <translation>Geri al</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{count} filters are saved. Remove one first.</source>
        <translation>{count} filtre kayıtlı. Önce birini kaldırın.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{name} is removed.</source>
        <translation>{name} kaldırıldı.</translation>
    </message>
    <message>
        <location filename="../../ui/saved_filters.py"/>
        <source>{old} is now called {name}.</source>
        <translation>{old} artık {name} adında.</translation>
    </message>
</context>
<context>
    <name>SavingPage</name>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save the device</source>
        <translation>Cihazı &amp;kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {name}</source>
        <translation>{name} cihazını &amp;kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;Save {n} devices</source>
        <translation>{n} cihazı &amp;kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>&amp;What will be saved</source>
        <translation>Kay&amp;dedilecekler</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>As on its name plate. Its flow checks that this meter is the one that answers.</source>
        <translation>Etiketinde yazdığı gibi. Akışı, yanıt verenin bu sayaç olduğunu denetler.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>It is being saved...</source>
        <translation>Kaydediliyor...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Its name and its place</source>
        <translation>Adı ve yeri</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Hâlâ gerekli: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>There was no good test of this connection. It can be saved all the same.</source>
        <translation>Bu bağlantının başarılı bir testi yok. Yine de kaydedilebilir.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>Tick what is to be saved.</source>
        <translation>Kaydedilecekleri işaretleyin.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>What will be saved</source>
        <translation>Kaydedilecekler</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name}  (in the tree already)</source>
        <translation>{name}  (zaten ağaçta)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/saving.py"/>
        <source>{name} has the serial number {serial} too: it seems to be the same device.</source>
        <translation>{name} de {serial} seri numarasını taşıyor: aynı cihaz gibi görünüyor.</translation>
    </message>
</context>
<context>
    <name>SearchPage</name>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Stop the search</source>
        <translation>Aramayı &amp;durdur</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test it</source>
        <translation>&amp;Test et</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>&amp;Test {name}</source>
        <translation>{name} &amp;test et</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that came</source>
        <translation>Gelen baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Bytes that were sent</source>
        <translation>Gönderilen baytlar</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Choose a try to see its bytes.</source>
        <translation>Baytlarını görmek için bir deneme seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Compare the fingerprint of the certificate first.</source>
        <translation>Önce sertifikanın parmak izini karşılaştırın.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Fingerprint of the certificate (SHA-256)</source>
        <translation>Sertifikanın parmak izi (SHA-256)</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>How far the search is</source>
        <translation>Arama ne kadar ilerledi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>I &amp;compared the fingerprint with the meter&apos;s papers, and it is the same</source>
        <translation>Parmak izini sayacın belgeleriyle &amp;karşılaştırdım, aynı</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Looking: {tries} of at most {count} tries, {passed} of at most {most}.</source>
        <translation>Aranıyor: deneme {tries}, en çok {count}; geçen {passed}, en çok {most}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing came back.</source>
        <translation>Hiçbir şey geri gelmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found yet.</source>
        <translation>Henüz bir şey bulunmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was found.</source>
        <translation>Hiçbir şey bulunamadı.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Nothing was sent.</source>
        <translation>Hiçbir şey gönderilmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Outcome</source>
        <translation>Sonuç</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Progress of the search</source>
        <translation>Aramanın ilerlemesi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Received</source>
        <translation>Alınan</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Search &amp;again</source>
        <translation>&amp;Yeniden ara</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Sent</source>
        <translation>Gönderilen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search begins...</source>
        <translation>Arama başlıyor...</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>The search is being stopped...</source>
        <translation>Arama durduruluyor...</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/wizard/search.py"/>
        <source>The search was stopped after {n} tries.</source>
        <translation>
            <numerusform>Arama {n} denemeden sonra durduruldu.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Tried</source>
        <translation>Denenen</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for it to dial in</source>
        <translation>Bağlanması bekleniyor</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Waiting for the device: {passed} of at most {most}.</source>
        <translation>Cihaz bekleniyor: en çok {most}, geçen {passed}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What</source>
        <translation>Ne</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What answers</source>
        <translation>Yanıt verenler</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What came of it</source>
        <translation>Ne çıktığı</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was found</source>
        <translation>Bulunanlar</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>What was tried</source>
        <translation>Denenenler</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>Where</source>
        <translation>Yer</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>answered</source>
        <translation>yanıtlandı</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/search.py"/>
        <source>silent</source>
        <translation>sessiz</translation>
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
        <translation>Çalışma alanı, dosyası silinene kadar her etkileşimi, baytı ve örneği saklar.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Armed for</source>
        <translation>Yazma izni süresi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>As it is</source>
        <translation>Şu anki durum</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Colours</source>
        <translation>Renkler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts from the next start.</source>
        <translation>Sonraki başlatmada geçerli olur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Counts when a workspace is opened next. Files have UTC always.</source>
        <translation>Bir çalışma alanı yeniden açıldığında geçerli olur. Dosyalarda her zaman UTC kullanılır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Devices dial in at</source>
        <translation>Cihazların bağlandığı adres</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Folder for exports</source>
        <translation>Dışa aktarma klasörü</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>For a screen whose size the system gets wrong. Counts from the next start.</source>
        <translation>Sistemin boyutunu yanlış belirlediği ekranlar için. Sonraki başlatmada geçerli olur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Keyring</source>
        <translation>Anahtarlık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language</source>
        <translation>Dil</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Language and size count from the next start of Meterwright.</source>
        <translation>Dil ve boyut, Meterwright&apos;ın sonraki başlatılışında geçerli olur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Leave as it was</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Passwords and keys</source>
        <translation>Parolalar ve anahtarlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Save the settings</source>
        <translation>Ayarları kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings</source>
        <translation>Ayarlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Settings: {config}
Workspaces: {data}
Program&apos;s log and crash reports: {logs}</source>
        <translation>Ayarlar: {config}
Çalışma alanları: {data}
Program günlüğü ve çökme raporları: {logs}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Size of everything</source>
        <translation>Genel boyut</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>So long may be written to meters once that is armed; then the window only reads.</source>
        <translation>Yazma izni verildiğinde sayaçlara bu süre boyunca yazılabilir; sonra pencere yalnızca okur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a folder that is there, or none.</source>
        <translation>Hâlâ gerekli: var olan bir klasör ya da hiçbiri.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: a number of minutes.</source>
        <translation>Hâlâ gerekli: dakika sayısı.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Still needed: an address of this computer.</source>
        <translation>Hâlâ gerekli: bu bilgisayarın bir adresi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The keyring of this computer is being asked…</source>
        <translation>Bu bilgisayarın anahtarlığı sorgulanıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>The program&apos;s own log takes {size} at most; the oldest lines go.</source>
        <translation>Programın kendi günlüğü en çok {size} yer kaplar; en eski satırlar silinir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Times on screen</source>
        <translation>Ekrandaki saatler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>UTC</source>
        <translation>UTC</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>What is kept</source>
        <translation>Saklananlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Window</source>
        <translation>Pencere</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>Work</source>
        <translation>Çalışma</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has it</source>
        <translation>sistemdeki gibi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>as the system has them</source>
        <translation>sistemdeki gibi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>dark</source>
        <translation>koyu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>light</source>
        <translation>açık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>local time of this computer</source>
        <translation>bu bilgisayarın yerel saati</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{name} takes {size} now.</source>
        <translation>{name} şu anda {size} yer kaplıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/settings.py"/>
        <source>{n} %</source>
        <translation>%{n}</translation>
    </message>
</context>
<context>
    <name>Severity</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>fault</source>
        <translation>arıza</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>note</source>
        <translation>not</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>warning</source>
        <translation>uyarı</translation>
    </message>
</context>
<context>
    <name>Share</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>File</source>
        <translation>Dosya</translation>
    </message>
</context>
<context>
    <name>ShareDialog</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A &amp;part of the log</source>
        <translation>Günlüğün bir &amp;bölümü</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>A support &amp;bundle</source>
        <translation>&amp;Destek paketi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>All {n} interactions.</source>
        <translation>{n} etkileşimin tümü.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Correct the filter, then what is replaced by what stands here.</source>
        <translation>Filtreyi düzeltin; neyin neyle değiştirildiği o zaman burada görünür.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Counting…</source>
        <translation>Sayılıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Everything; or, for example,  status:failed device:lem-1</source>
        <translation>Her şey; ya da örneğin  status:failed device:lem-1</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;ilter</source>
        <translation>&amp;Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>F&amp;orm</source>
        <translation>B&amp;içim</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Filter</source>
        <translation>Filtre</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Form</source>
        <translation>Biçim</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>From</source>
        <translation>Başlangıç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>How many interactions</source>
        <translation>Etkileşim sayısı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>It was stopped. Nothing was written.</source>
        <translation>Durduruldu. Hiçbir şey yazılmadı.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;again</source>
        <translation>&amp;Yeniden bak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Look &amp;now</source>
        <translation>Şimdi ba&amp;k</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced…</source>
        <translation>Değiştirilecekler aranıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Looking for what is to be replaced… {percent} %</source>
        <translation>Değiştirilecekler aranıyor… %{percent}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>None of {all} interactions matches.</source>
        <translation>{all} etkileşimin hiçbiri eşleşmiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing was replaced.</source>
        <translation>Hiçbir şey değiştirilmedi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Nothing would be replaced.</source>
        <translation>Hiçbir şey değiştirilmezdi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>One ZIP file that says how this installation stands: versions, the doctor&apos;s findings, settings, devices and the program&apos;s log, all without secrets.</source>
        <translation>Bu kurulumun durumunu anlatan tek bir ZIP dosyası: sürümler, doktorun bulguları, ayarlar, cihazlar ve programın günlüğü; hiçbiri gizli bilgi içermez.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Onl&amp;y those of a time</source>
        <translation>&amp;Yalnızca bir zaman aralığındakiler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Passwords and other secrets are hidden in any case.</source>
        <translation>Parolalar ve diğer gizli bilgiler her durumda gizlenir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. Nothing is written for that.</source>
        <translation>Neyin neyle değiştirildiğini görmek için “Şimdi bak” düğmesine basın. Bunun için hiçbir şey yazılmaz.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Press “Look now” to see what is replaced by what. The doctor takes some seconds.</source>
        <translation>Neyin neyle değiştirildiğini görmek için “Şimdi bak” düğmesine basın. Doktor birkaç saniye sürer.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced by pseudonyms, the same ones everywhere</source>
        <translation>Takma adlarla değiştirilir, her yerde aynıları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Replaced in it: {kinds}.</source>
        <translation>İçinde değiştirilenler: {kinds}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share a part of the log</source>
        <translation>Günlüğün bir bölümünü paylaş</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Share: support bundle</source>
        <translation>Paylaş: destek paketi</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Show in &amp;folder</source>
        <translation>K&amp;lasörde göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a file.</source>
        <translation>Hâlâ gerekli: bir dosya.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that can be read.</source>
        <translation>Hâlâ gerekli: okunabilir bir filtre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: a filter that something matches.</source>
        <translation>Hâlâ gerekli: bir şeyle eşleşen bir filtre.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Still needed: an end of the samples that is behind their beginning.</source>
        <translation>Eksik: örneklerin başlangıcından sonra bir bitişi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop loo&amp;king</source>
        <translation>Ara&amp;mayı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stop writing</source>
        <translation>Yazmayı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Stopping…</source>
        <translation>Durduruluyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Support bundle (*.zip)</source>
        <translation>Destek paketi (*.zip)</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The file is being written</source>
        <translation>Dosya yazılıyor</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This computer has nothing to show a folder with. The file is {file}.</source>
        <translation>Bu bilgisayarda klasör gösterecek bir program yok. Dosya: {file}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>This form holds no samples.</source>
        <translation>Bu biçim örnek içermez.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>To before</source>
        <translation>Şundan öncesine kadar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What became of it</source>
        <translation>Ne olduğu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What happened, and what did you expect?</source>
        <translation>Ne oldu ve ne bekliyordunuz?</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What was replaced</source>
        <translation>Değiştirilenler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>What would be replaced</source>
        <translation>Değiştirilecekler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With a part of the &amp;log</source>
        <translation>Gü&amp;nlüğün bir bölümüyle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>With the &amp;samples of the devices</source>
        <translation>Cihazların ö&amp;rnekleriyle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the bundle</source>
        <translation>Paketi yaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Write the file</source>
        <translation>Dosyayı yaz</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>Writing {name}…</source>
        <translation>{name} yazılıyor…</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{file} holds {names}. Look through it before you send it.</source>
        <translation>{file} şunları içeriyor: {names}. Göndermeden önce gözden geçirin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name}, a part</source>
        <translation>{name}, bir bölümü</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} attachments were left out: what stands in a picture cannot be replaced.</source>
        <translation>
            <numerusform>{n} ek dışarıda bırakıldı: resmin içindekiler değiştirilemez.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} frames were written to {file}.</source>
        <translation>
            <numerusform>{n} çerçeve {file} dosyasına yazıldı.</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} interactions were written to {file}.</source>
        <translation>
            <numerusform>{n} etkileşim {file} dosyasına yazıldı.</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{n} of {all} interactions.</source>
        <translation>{all} etkileşimden {n} tanesi.</translation>
    </message>
</context>
<context>
    <name>Shortcuts</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Begin again at the end, or not</source>
        <translation>Sonda baştan başla ya da başlama</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Choose everything</source>
        <translation>Tümünü seç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy the chosen rows, in the tables beside it</source>
        <translation>Seçili satırları kopyala, yanındaki tablolarda</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Copy what is chosen</source>
        <translation>Seçileni kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Empty the search or filter line, or leave it</source>
        <translation>Arama veya filtre satırını boşalt ya da satırdan çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Everywhere</source>
        <translation>Her yerde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Follow what comes</source>
        <translation>Gelenleri izle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>From a search or filter line into the list below</source>
        <translation>Arama veya filtre satırından alttaki listeye</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the picture, or go on</source>
        <translation>Görüntüyü durdur veya sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Hold the recording, or go on</source>
        <translation>Kaydı durdur veya sürdür</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In bytes</source>
        <translation>Baytlarda</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the fourteen steps</source>
        <translation>On dört adımda</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>In the log and in lists</source>
        <translation>Günlükte ve listelerde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Leave a dialog, the palette or a menu</source>
        <translation>İletişim kutusundan, paletten veya menüden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor A</source>
        <translation>A imlecini kaydır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move cursor B</source>
        <translation>B imlecini kaydır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Move in time</source>
        <translation>Zamanda ilerle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Note on this moment</source>
        <translation>Bu ana not</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>On a chart</source>
        <translation>Grafikte</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Open what is chosen</source>
        <translation>Seçileni aç</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Put cursor A or B in the middle</source>
        <translation>A veya B imlecini ortaya koy</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show everything</source>
        <translation>Her şeyi göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show less time, or more</source>
        <translation>Daha az veya daha çok zaman göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Show what belongs to the step</source>
        <translation>Adıma ait olanı göster</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Take the chosen curve away, in the list of curves</source>
        <translation>Seçili eğriyi kaldır, eğri listesinde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the ends of the line; with Ctrl of all</source>
        <translation>Satırın uçlarına; Ctrl ile tümünün uçlarına</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the first step, or the last</source>
        <translation>İlk adıma veya son adıma</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next byte; with Shift choose them</source>
        <translation>Sonraki bayta; Shift ile seçer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next bytes that moved</source>
        <translation>Sonraki hareket eden baytlara</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next command</source>
        <translation>Sonraki komuta</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next field, or the one before</source>
        <translation>Sonraki alana veya öncekine</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>To the next step in that direction</source>
        <translation>O yöndeki sonraki adıma</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What a right click offers</source>
        <translation>Sağ tıklamanın sundukları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What may stand here, in the filter line</source>
        <translation>Filtre satırında buraya ne yazılabileceği</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>While a log is replayed</source>
        <translation>Günlük yeniden oynatılırken</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>With an underlined letter: to that menu, button or field</source>
        <translation>Altı çizili harfle: o menüye, düğmeye veya alana</translation>
    </message>
</context>
<context>
    <name>ShortcutsDialog</name>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>A key or what it does</source>
        <translation>Bir tuş veya ne yaptığı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Close</source>
        <translation>Kapat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Ctrl+Shift+P finds every action by typing, also those without a key.</source>
        <translation>Ctrl+Shift+P yazarak her işlemi bulur, tuşu olmayanları da.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keyboard shortcuts</source>
        <translation>Klavye kısayolları</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Keys</source>
        <translation>Tuşlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Look for a key or what it does</source>
        <translation>Bir tuş veya yaptığı işi ara</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>Nothing matches. Try fewer letters.</source>
        <translation>Hiçbir şey eşleşmiyor. Daha az harf deneyin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/shortcuts.py"/>
        <source>What it does</source>
        <translation>Ne yapar</translation>
    </message>
</context>
<context>
    <name>StartPage</name>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Began</source>
        <translation>Başladı</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Customer</source>
        <translation>Müşteri</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Earlier runs</source>
        <translation>Önceki yürütmeler</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Engineer</source>
        <translation>Mühendis</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flow</source>
        <translation>Akış</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows</source>
        <translation>Akışlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Flows for {name}</source>
        <translation>{name} için akışlar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>For the report (kept with this workspace)</source>
        <translation>Rapor için (bu çalışma alanıyla saklanır)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Instrument</source>
        <translation>Ölçü aleti</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It changes the device: {writes}. You are asked before it begins.</source>
        <translation>Cihazı değiştirir: {writes}. Başlamadan önce size sorulur.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>It only reads: nothing on the device is changed.</source>
        <translation>Yalnızca okur: cihazda hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>No flow is made for {system}. Put a flow file (TOML) with this system among its adapters into the folder “flows” of your profile, and read the files again.</source>
        <translation>{system} için hazır akış yok. Bağdaştırıcıları arasında bu sistem bulunan bir akış dosyasını (TOML) profilinizin “flows” klasörüne koyun ve dosyaları yeniden okuyun.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Read files again</source>
        <translation>Dosyaları yeniden oku</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Site</source>
        <translation>Saha</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>Start flow on {name}</source>
        <translation>Akışı başlat: {name}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>State</source>
        <translation>Durum</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (asks you)</source>
        <translation>{line}  (size sorar)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (changes the device)</source>
        <translation>{line}  (cihazı değiştirir)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{line}  (left out with these inputs)</source>
        <translation>{line}  (bu girdilerle atlanır)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{name} does not offer {commands}: those steps cannot pass here.</source>
        <translation>{name} şunları sunmuyor: {commands}. Bu adımlar burada geçemez.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/flow_start.py"/>
        <source>{title}, version {version}</source>
        <translation>{title}, sürüm {version}</translation>
    </message>
</context>
<context>
    <name>StateBand</name>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>States</source>
        <translation>Durumlar</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>and {n} more: hide the curves of other devices in the list below</source>
        <translation>ve {n} tane daha: alttaki listede diğer cihazların eğrilerini gizleyin</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not connected; last known {what}, {time}</source>
        <translation>bağlı değil; son bilinen {what}, {time}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known before {time}</source>
        <translation>{time} öncesi bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>not known yet</source>
        <translation>henüz bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Not known before {time}: states are kept while the device is on the chart.</source>
        <translation>{name}
{time} öncesi bilinmiyor: durumlar, cihaz grafikteyken saklanır.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{name}
Nothing was heard at this time.</source>
        <translation>{name}
Bu anda haber alınmadı.</translation>
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
{start} – {end}, {length} s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/state_band.py"/>
        <source>{what} since {time}</source>
        <translation>{what}, başlangıç {time}</translation>
    </message>
</context>
<context>
    <name>States</name>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>error flags {flags}</source>
        <translation>hata bayrakları {flags}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>mode {mode}</source>
        <translation>mod {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/models/states.py"/>
        <source>{text} and {n} more</source>
        <translation>{text} ve {n} tane daha</translation>
    </message>
</context>
<context>
    <name>StatisticsModel</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Change</source>
        <translation>Değişim</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Device</source>
        <translation>Cihaz</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Energy, charge</source>
        <translation>Enerji, elektrik yükü</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>First</source>
        <translation>İlk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Last</source>
        <translation>Son</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Max</source>
        <translation>Maks</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Mean</source>
        <translation>Ortalama</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Min</source>
        <translation>Min</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Quantity</source>
        <translation>Büyüklük</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>RMS</source>
        <translation>RMS</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples</source>
        <translation>Örnekler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Samples/s</source>
        <translation>Örnek/s</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per h</source>
        <translation>Eğim, sa başına</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Slope per s</source>
        <translation>Eğim, s başına</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Std dev</source>
        <translation>Std. sapma</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Time covered</source>
        <translation>Kapsanan süre</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Unit</source>
        <translation>Birim</translation>
    </message>
</context>
<context>
    <name>StatisticsView</name>
    <message>
        <location filename="../../ui/widgets/chart/views.py"/>
        <source>Gaps are left out of energy and time covered.</source>
        <translation>Boşluklar enerjiye ve kapsanan süreye katılmaz.</translation>
    </message>
</context>
<context>
    <name>Status</name>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>done</source>
        <translation>bitti</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>failed</source>
        <translation>başarısız</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>given up</source>
        <translation>vazgeçildi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>new</source>
        <translation>yeni</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>on its way</source>
        <translation>yolda</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>paused (suspended)</source>
        <translation>duraklatıldı (askıda)</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>queued</source>
        <translation>kuyrukta</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>replaced</source>
        <translation>değiştirildi</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>unknown</source>
        <translation>bilinmiyor</translation>
    </message>
    <message>
        <location filename="../../ui/theme.py"/>
        <source>waits (deferred)</source>
        <translation>bekliyor (ertelendi)</translation>
    </message>
</context>
<context>
    <name>StatusBar</name>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>, stopped</source>
        <translation>, durduruldu</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/status_bar.py"/>
        <source>, {n} failed</source>
        <translation>
            <numerusform>, {n} başarısız</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch under way</source>
        <translation>Süren toplu iş</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Batch {done} of {total}</source>
        <translation>Toplu iş {done} / {total}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Commands under way</source>
        <translation>Süren komutlar</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links</source>
        <translation>Bağlantılar</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Links with traffic; a filled mark means bytes in the last second.</source>
        <translation>Trafiği olan bağlantılar; dolu işaret son saniyede bayt geçtiğini gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Log size</source>
        <translation>Günlük boyutu</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Messages a second</source>
        <translation>Saniyedeki ileti</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Mode</source>
        <translation>Mod</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>REPLAY</source>
        <translation>YENİDEN OYNATMA</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>Team database</source>
        <translation>Ekip veritabanı</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>live</source>
        <translation>canlı</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {count}, {size}</source>
        <translation>günlük {count}, {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>log {size}</source>
        <translation>günlük {size}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>nothing waits</source>
        <translation>bekleyen yok</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>read only</source>
        <translation>salt okunur</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>team: {word}</source>
        <translation>ekip: {word}</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{device} {out}TX {into}RX</source>
        <translation>{device} {out}TX {into}RX</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{n} of {total} links busy</source>
        <translation>{n} / {total} bağlantı meşgul</translation>
    </message>
    <message>
        <location filename="../../ui/status_bar.py"/>
        <source>{rate} msg/s</source>
        <translation>{rate} ileti/s</translation>
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
        <translation>Uygulama</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Device messaging</source>
        <translation>Cihaz mesajlaşması</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>Hardware</source>
        <translation>Donanım</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>IN</source>
        <translation>GELEN</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>OUT</source>
        <translation>GİDEN</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>The fourteen steps</source>
        <translation>On dört adım</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>answer</source>
        <translation>yanıt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>click</source>
        <translation>tıklama</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>decode</source>
        <translation>çözme</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>done</source>
        <translation>bitti</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>effects</source>
        <translation>etkiler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>encode</source>
        <translation>kodlama</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>gatekeeper</source>
        <translation>denetim</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>matched</source>
        <translation>eşleşme</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>meter</source>
        <translation>sayaç</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>network</source>
        <translation>ağ</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>not reached</source>
        <translation>ulaşılmadı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>queue</source>
        <translation>kuyruk</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>request</source>
        <translation>istek</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>saved</source>
        <translation>kayıt</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>seen</source>
        <translation>görülme</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>to come</source>
        <translation>gelecek</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/step_strip.py"/>
        <source>{seconds} s after the click</source>
        <translation>tıklamadan {seconds} s sonra</translation>
    </message>
</context>
<context>
    <name>System</name>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Battery</source>
        <translation>Batarya</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>DC side {value}</source>
        <translation>DC tarafı {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Grid</source>
        <translation>Şebeke</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Inverter</source>
        <translation>Evirici</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>Load</source>
        <translation>Yük</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>charging</source>
        <translation>şarj oluyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed</source>
        <translation>tüketilen</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>consumed {value}</source>
        <translation>tüketilen {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>demand {value}</source>
        <translation>demant {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>discharging</source>
        <translation>boşalıyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>drawing</source>
        <translation>çekiyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>efficiency {value}</source>
        <translation>verim {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>export</source>
        <translation>veriş</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding back</source>
        <translation>geri besliyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>feeding in</source>
        <translation>şebekeye veriyor</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>generated {value}</source>
        <translation>üretilen {value}</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>import</source>
        <translation>çekiş</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>no flow</source>
        <translation>akış yok</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>not reported</source>
        <translation>bildirilmedi</translation>
    </message>
    <message>
        <location filename="../../ui/models/system.py"/>
        <source>peak demand {value}</source>
        <translation>en yüksek demant {value}</translation>
    </message>
</context>
<context>
    <name>SystemPanel</name>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Choose a battery system in the tree on the left: {names}.</source>
        <translation>Soldaki ağaçtan bir batarya sistemi seçin: {names}.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Connect it first.</source>
        <translation>Önce bağlayın.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>It is connected: its next packet is shown here.</source>
        <translation>Bağlı: sonraki paketi burada gösterilir.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>No device of this workspace tells battery and grid power.</source>
        <translation>Bu çalışma alanındaki hiçbir cihaz batarya ve şebeke gücünü bildirmiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>Picture of the system</source>
        <translation>Sistemin resmi</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>System</source>
        <translation>Sistem</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} has sent no telemetry since this workspace was opened.
{why}</source>
        <translation>{name} bu çalışma alanı açıldığından beri telemetri göndermedi.
{why}</translation>
    </message>
    <message>
        <location filename="../../ui/panels/system.py"/>
        <source>{name} tells no battery and grid power.
Choose a battery system in the tree: {names}.</source>
        <translation>{name} batarya ve şebeke gücünü bildirmiyor.
Ağaçtan bir batarya sistemi seçin: {names}.</translation>
    </message>
</context>
<context>
    <name>SystemPicture</name>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Flows of power</source>
        <translation>Güç akışları</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>Last packet {age} s ago: these are old values.</source>
        <translation>Son paket {age} s önce: bunlar eski değerler.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>The widest arrow is {power}.</source>
        <translation>En geniş ok {power}.</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>charge {charge}</source>
        <translation>doluluk {charge}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>mode {mode}</source>
        <translation>mod {mode}</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/system_picture.py"/>
        <source>{part}, charge {charge}</source>
        <translation>{part}, doluluk {charge}</translation>
    </message>
</context>
<context>
    <name>TargetField</name>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>The name must end with {suffix}.</source>
        <translation>Ad {suffix} ile bitmelidir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>There is no folder {folder}. Choose another one.</source>
        <translation>{folder} diye bir klasör yok. Başka bir klasör seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/share.py"/>
        <source>{name} exists already. Choose another name.</source>
        <translation>{name} zaten var. Başka bir ad seçin.</translation>
    </message>
</context>
<context>
    <name>Team</name>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Connecting to the team database.</source>
        <translation>Ekip veritabanına bağlanılıyor.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is switched off; nothing leaves this computer.</source>
        <translation>Kapalı durumda; bu bilgisayardan hiçbir şey çıkmaz.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again at {time}. What comes meanwhile is kept and sent then.</source>
        <translation>{time} anında yeniden denenir. Bu arada gelenler saklanır ve o zaman gönderilir.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>It is tried again when its settings are saved or the workspace is opened.</source>
        <translation>Ayarları kaydedildiğinde veya çalışma alanı açıldığında yeniden denenir.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Last time everything was there: {time}.</source>
        <translation>Her şeyin son kez orada olduğu an: {time}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Rows that are not in the team database yet: {count}.</source>
        <translation>Henüz ekip veritabanında olmayan satır: {count}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>Sent so far: samples {samples}, interactions {interactions}.</source>
        <translation>Şimdiye kadar gönderilen: örnek {samples}, etkileşim {interactions}.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>The team database has everything.</source>
        <translation>Ekip veritabanında her şey var.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>What is new is being sent to the team database.</source>
        <translation>Yenilikler ekip veritabanına gönderiliyor.</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>connecting</source>
        <translation>bağlanıyor</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>held up</source>
        <translation>takıldı</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>not reachable</source>
        <translation>ulaşılamıyor</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>off</source>
        <translation>kapalı</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>sending</source>
        <translation>gönderiyor</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>stopped</source>
        <translation>durduruldu</translation>
    </message>
    <message>
        <location filename="../../ui/team_state.py"/>
        <source>up to date</source>
        <translation>güncel</translation>
    </message>
    <message numerus="yes">
        <location filename="../../ui/team_state.py"/>
        <source>{count} waiting</source>
        <translation>
            <numerusform>{count} bekliyor</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>TeamDialog</name>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Push this workspace to the team database</source>
        <translation>Bu çalışma alanını ekip veritabanına &amp;aktar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>&amp;Test the connection</source>
        <translation>&amp;Bağlantıyı test et</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Address</source>
        <translation>Adres</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connecting to {name}...</source>
        <translation>{name} ile bağlantı kuruluyor...</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Connects and looks. Nothing is written to the database.</source>
        <translation>Bağlanır ve bakar. Veritabanına hiçbir şey yazılmaz.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>For example {example}; ?sslmode=verify-full behind it asks for encryption.</source>
        <translation>Örneğin {example}; arkasına eklenen ?sslmode=verify-full şifreleme ister.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Frames: the bytes on the wire.
Secrets: passwords, keys and tokens, also those inside parameters and results.
Devices with their addresses and settings, and this workspace&apos;s file.</source>
        <translation>Çerçeveler: hattaki baytlar.
Gizli bilgiler: parolalar, anahtarlar ve jetonlar; parametre ve sonuçların içindekiler de.
Adresleri ve ayarlarıyla cihazlar ve bu çalışma alanının dosyası.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>How the push is now</source>
        <translation>Aktarımın şu anki durumu</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>It is switched off.</source>
        <translation>Kapalı durumda.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Keep the password for this session only</source>
        <translation>Parolayı yalnızca bu oturum için sakla</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Leave without saving</source>
        <translation>Kaydetmeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Left empty, the one that is kept for this address is used, or a .pgpass file.</source>
        <translation>Boş bırakılırsa bu adres için saklanan parola veya bir .pgpass dosyası kullanılır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Now: {word}. {text}</source>
        <translation>Şimdi: {word}. {text}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Otherwise it goes to the keyring of this computer. It never stands in the workspace or the log.</source>
        <translation>Yoksa bu bilgisayarın anahtarlığına konur. Çalışma alanında veya günlükte asla yer almaz.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Password</source>
        <translation>Parola</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Samples: meter, quantity, unit, time, value, and the meter&apos;s own time.
Interactions: meter, command, status, times, parameters, result and failure.
The name of this workspace, and a random id for it.</source>
        <translation>Örnekler: sayaç, büyüklük, birim, zaman, değer ve sayacın kendi zamanı.
Etkileşimler: sayaç, komut, durum, zamanlar, parametreler, sonuç ve hata.
Bu çalışma alanının adı ve onun için rastgele bir kimlik.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Save the changes</source>
        <translation>Değişiklikleri kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Start the push</source>
        <translation>Aktarımı başlat</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Still needed: an address of a database.</source>
        <translation>Hâlâ gerekli: bir veritabanı adresi.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Stop the push</source>
        <translation>Aktarımı durdur</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>Team database</source>
        <translation>Ekip veritabanı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>The test was stopped.</source>
        <translation>Test durduruldu.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>There was no result in {n} s. Check the address, then test again.</source>
        <translation>{n} s içinde sonuç gelmedi. Adresi denetleyip yeniden test edin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What goes there</source>
        <translation>Oraya gidenler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>What never leaves</source>
        <translation>Asla dışarı çıkmayanlar</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>While this workspace is open, what is new in it is copied to a PostgreSQL that a team shares, for dashboards and reports. Nothing on the bench waits for it; what it misses is sent later.</source>
        <translation>Bu çalışma alanı açıkken, içindeki yenilikler ekibin paylaştığı bir PostgreSQL&apos;e panolar ve raporlar için kopyalanır. Tezgâhta hiçbir şey bunu beklemez; kaçırılanlar sonra gönderilir.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/team.py"/>
        <source>{variable} is set in the environment of this program and is used.</source>
        <translation>{variable} bu programın ortamında tanımlı ve kullanılıyor.</translation>
    </message>
</context>
<context>
    <name>TextView</name>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Control characters</source>
        <translation>Denetim karakterleri</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Copy text</source>
        <translation>Metni kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Next</source>
        <translation>Sonraki</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Places found</source>
        <translation>Bulunan yerler</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Previous</source>
        <translation>Önceki</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>Search this text</source>
        <translation>Bu metinde ara</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>The whole text as it was received, to the clipboard</source>
        <translation>Alındığı haliyle tüm metin, panoya</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>not found</source>
        <translation>bulunamadı</translation>
    </message>
    <message>
        <location filename="../../ui/widgets/text_view.py"/>
        <source>{at} of {count}</source>
        <translation>{at} / {count}</translation>
    </message>
</context>
<context>
    <name>ThresholdAlarms</name>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is no longer watched for the threshold {threshold}.</source>
        <translation>{name} artık {threshold} eşiği için izlenmiyor.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value} again, within the threshold {threshold}.</source>
        <translation>{name}: yeniden {value}, {threshold} eşiğinin içinde.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, above the threshold {threshold}.</source>
        <translation>{name}: {value}, {threshold} eşiğinin üstünde.</translation>
    </message>
    <message>
        <location filename="../../ui/alarms.py"/>
        <source>{name} is {value}, below the threshold {threshold}.</source>
        <translation>{name}: {value}, {threshold} eşiğinin altında.</translation>
    </message>
</context>
<context>
    <name>ThresholdDialog</name>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add a threshold</source>
        <translation>Eşik ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Add the threshold</source>
        <translation>Eşiği ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Choose which curves the threshold is of.</source>
        <translation>Eşiğin hangi eğriler için olduğunu seçin.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve in {unit}</source>
        <translation>Birimi {unit} olan her eğri</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Every curve without a unit</source>
        <translation>Birimi olmayan her eğri</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>How far it has to come back before it counts as within again.</source>
        <translation>Yeniden içeride sayılması için ne kadar geri gelmesi gerektiği.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Hysteresis</source>
        <translation>Histerezis</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave as it was</source>
        <translation>Olduğu gibi bırak</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Leave without adding</source>
        <translation>Eklemeden çık</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Only {curve}</source>
        <translation>Yalnızca {curve}</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Remove the threshold</source>
        <translation>Eşiği kaldır</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Save the threshold</source>
        <translation>Eşiği kaydet</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Stands at its line.</source>
        <translation>Çizgisinin yanında durur.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Still needed: {what}.</source>
        <translation>Hâlâ gerekli: {what}.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Tell when a value is</source>
        <translation>Şu durumda bildir: değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Threshold</source>
        <translation>Eşik</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Told as</source>
        <translation>Bildirim türü</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>What will be told</source>
        <translation>Bildirilecekler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>Which curves</source>
        <translation>Hangi eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value</source>
        <translation>bir değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>a value that is a number</source>
        <translation>sayı olan bir değer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>above the threshold</source>
        <translation>eşiğin üstünde</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>below the threshold</source>
        <translation>eşiğin altında</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>which curves</source>
        <translation>hangi eğriler</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is above {limit}, over when one is {back} or less.</source>
        <translation>{who}: bir değer {limit} üstüne çıkınca {severity}; {back} veya altına inince biter.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/threshold.py"/>
        <source>{who}: a {severity} as soon as a value is below {limit}, over when one is {back} or more.</source>
        <translation>{who}: bir değer {limit} altına inince {severity}; {back} veya üstüne çıkınca biter.</translation>
    </message>
</context>
<context>
    <name>TrialPage</name>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it</source>
        <translation>&amp;Adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>&amp;Name it without a good test</source>
        <translation>Başarılı test olmadan &amp;adlandır</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Passwords and keys, where the device wants them</source>
        <translation>Cihazın istediği yerlerde parolalar ve anahtarlar</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Reached by</source>
        <translation>Ulaşım yolu</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Serial number</source>
        <translation>Seri numarası</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Hâlâ gerekli: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test a&amp;gain</source>
        <translation>&amp;Yeniden test et</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>Test of {name}</source>
        <translation>{name} testi</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/trial.py"/>
        <source>The test is under way.</source>
        <translation>Test sürüyor.</translation>
    </message>
</context>
<context>
    <name>Value</name>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>no</source>
        <translation>hayır</translation>
    </message>
    <message>
        <location filename="../../ui/models/log_table.py"/>
        <source>yes</source>
        <translation>evet</translation>
    </message>
</context>
<context>
    <name>ValueTree</name>
    <message numerus="yes">
        <location filename="../../ui/panels/detail.py"/>
        <source>%n entries</source>
        <translation>
            <numerusform>%n girdi</numerusform>
        </translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>(nothing)</source>
        <translation>(hiçbir şey)</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy name and value</source>
        <translation>Adı ve değeri kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Copy value</source>
        <translation>Değeri kopyala</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Name</source>
        <translation>Ad</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Unit</source>
        <translation>Birim</translation>
    </message>
    <message>
        <location filename="../../ui/panels/detail.py"/>
        <source>Value</source>
        <translation>Değer</translation>
    </message>
</context>
<context>
    <name>Verdict</name>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>cannot be checked here</source>
        <translation>burada denetlenemez</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>genuine</source>
        <translation>gerçek</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: key of another kind</source>
        <translation>denetlenmedi: başka türden anahtar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: no key</source>
        <translation>denetlenmedi: anahtar yok</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not checked: unusable key</source>
        <translation>denetlenmedi: kullanılamaz anahtar</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not genuine</source>
        <translation>gerçek değil</translation>
    </message>
    <message>
        <location filename="../../ui/panels/ocmf.py"/>
        <source>not readable</source>
        <translation>okunamıyor</translation>
    </message>
</context>
<context>
    <name>ViewTabs</name>
    <message>
        <location filename="../../ui/views.py"/>
        <source>More</source>
        <translation>Daha</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>The other views. View &gt; Go to has all of them.</source>
        <translation>Diğer görünümler. Görünüm &gt; Git hepsini gösterir.</translation>
    </message>
    <message>
        <location filename="../../ui/views.py"/>
        <source>Views</source>
        <translation>Görünümler</translation>
    </message>
</context>
<context>
    <name>WayDialog</name>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way</source>
        <translation>Yolu ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Add the way {name}</source>
        <translation>{name} yolunu ekle</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Another way to {name}</source>
        <translation>{name} için başka bir yol</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>As it is called in menus, for example: through the head-end.</source>
        <translation>Menülerde görünen ad, örneğin: merkez sistem üzerinden.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>It had no name, because it was the only one.</source>
        <translation>Tek yol olduğu için adı yoktu.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the new way</source>
        <translation>Yeni yolun adı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>Name of the way in use</source>
        <translation>Kullanılan yolun adı</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>On the new way it stands in</source>
        <translation>Yeni yolda bulunduğu yer</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/connection.py"/>
        <source>{name} has a way of that name already.</source>
        <translation>{name} cihazının bu adda bir yolu zaten var.</translation>
    </message>
</context>
<context>
    <name>WelcomePage</name>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A bench for smart meters: connect, command, measure, replay.</source>
        <translation>Akıllı sayaçlar için bir çalışma tezgâhı: bağlanın, komut verin, ölçün, yeniden oynatın.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>A workspace or export that somebody sent: read, filter, replay. Nothing in it is changed.</source>
        <translation>Birinin gönderdiği çalışma alanı veya dışa aktarım: okuyun, filtreleyin, yeniden oynatın. İçinde hiçbir şey değiştirilmez.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>By cable, network or gateway. It is looked for, and tested before anything is kept.</source>
        <translation>Kabloyla, ağla veya ağ geçidiyle. Aranır ve bir şey saklanmadan önce test edilir.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Connect a meter</source>
        <translation>Sayaç bağla</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Ctrl+Shift+P finds every action, device and command by typing.</source>
        <translation>Ctrl+Shift+P yazarak her işlemi, cihazı ve komutu bulur.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Files used lately</source>
        <translation>Son kullanılan dosyalar</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Meterwright</source>
        <translation>Meterwright</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open a log</source>
        <translation>Günlük aç</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Open the demo site</source>
        <translation>Demo sahasını aç</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Simulated meters of every kind. No hardware, nothing to set up.</source>
        <translation>Her türden benzetilmiş sayaç. Donanım yok, kurulum yok.</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Used lately</source>
        <translation>Son kullanılanlar</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>Welcome</source>
        <translation>Karşılama</translation>
    </message>
    <message>
        <location filename="../../ui/welcome.py"/>
        <source>{name}   in {folder}</source>
        <translation>{name}   ({folder})</translation>
    </message>
</context>
<context>
    <name>WherePage</name>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Look for it</source>
        <translation>&amp;Ara</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Try the credentials</source>
        <translation>Giriş bilgilerini &amp;dene</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>&amp;Wait for it</source>
        <translation>&amp;Bekle</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Still needed: {fields}.</source>
        <translation>Hâlâ gerekli: {fields}.</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What the search will do</source>
        <translation>Aramanın yapacakları</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>What will be done</source>
        <translation>Yapılacaklar</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>Where is it?</source>
        <translation>Nerede?</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>every network of this computer</source>
        <translation>bu bilgisayarın tüm ağları</translation>
    </message>
    <message>
        <location filename="../../ui/wizard/where.py"/>
        <source>this computer only</source>
        <translation>yalnızca bu bilgisayar</translation>
    </message>
</context>
<context>
    <name>_Allowed</name>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: =. An operation is a name; what it is given stands in the parameter.</source>
        <translation>Reddedildi: =. İşlem bir addır; ona verilen parametrede yer alır.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: a character outside printable ASCII. Write a byte as two hex digits in brackets: [0D].</source>
        <translation>Reddedildi: yazdırılabilir ASCII dışında bir karakter. Baytı köşeli ayraç içinde iki onaltılık basamakla yazın: [0D].</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The gateway understands no escapes, so it would not store the directive.</source>
        <translation>Reddedildi: {char}. Ağ geçidi kaçış dizilerini anlamaz, yönergeyi saklamazdı.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>Refused: {char}. The id becomes a file name: only letters, digits, _ and -.</source>
        <translation>Reddedildi: {char}. Kimlik dosya adı olur: yalnızca harf, rakam, _ ve -.</translation>
    </message>
    <message>
        <location filename="../../ui/dialogs/directive.py"/>
        <source>a blank</source>
        <translation>bir boşluk</translation>
    </message>
</context>
<context>
    <name>_NameEditor</name>
    <message>
        <location filename="../../ui/panels/charts.py"/>
        <source>Name of the chart</source>
        <translation>Grafiğin adı</translation>
    </message>
</context>
</TS>
