import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion.dicom import text

WORDS = {  # encoding: words of radiology, and ids, as scanners and clerks write them
    "gb18030": "增强 造影 病例1 T1增强 轴位T2 平扫 头颅 定位像 胶质瘤 脑炎3 矢状位 病例（2）"
    " 颈椎 后处理 张伟 T2加权 压脂_FLAIR 王小明 冠状位+C",
    "cp932": "造影 頭部 造影後 単純 脳MRI 横断面 ガドリニウム T1強調 位置決め 症例1 拡散強調 脂肪抑制 肝臓",
    "euc_kr": "조영 조영증강 환자1 뇌 두부 T1조영후 축상 증례2 위치결정 경추 확산강조",
    "cp1252": "Übersicht Repérage séquence_à_vide Schädel_KM ÜBERSICHT créée Été 20°_±5 Ñuñez résumé Größe_µm Séquence"
    " inyección crânio Lésion após_contraste naïve coupe_à_3mm „Öl“ ²_mm",
    "cp1251": "с_контрастом МОЗГ Голова T1_до_контраста Срез пациент_3 обзор Т1 поясничный_отдел",
    "utf-8": "εγκέφαλος 增强 造影 病例1 조영 Übersicht с_контрастом",
    "ascii": "t1_se_tra_KM A-1001",
}


@pytest.mark.parametrize(("codec", "word"), [(c, w) for c, words in WORDS.items() for w in words.split()])
def test_words_of_radiology_are_read(codec, word):
    word = word.replace("_", " ")
    assert text.decode(word.encode(codec)) == word


@given(st.binary())
def test_any_bytes_are_read_and_the_best_reading_is_the_first(raw):
    readings = text.candidates(raw)
    assert text.decode(raw) == readings[0]
    assert len(set(readings)) == len(readings)
    assert not raw.isascii() or readings == [raw.decode()]


@given(st.text(st.sampled_from("病例患者号王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗0123456789-"), min_size=1))
def test_an_id_is_among_the_readings(patient_id):
    assert patient_id in text.candidates(patient_id.encode("gb18030"))
    assert patient_id in text.candidates(patient_id.encode())
