"""Made recordings: ten digits by a speech synthesizer where espeak-ng is installed, else sounds shaped like vowels.

The sounds stand in where nothing is installed: ten "words" of three parts, each a voice's harmonics under two
resonances or a hiss, spoken by six "speakers". They are no speech, and no result is taken from them.
"""

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np

from dyt.data.cache import kept
from dyt.data.recordings import Recordings

RATE = 8000
WORDS = "zero one two three four five six seven eight nine".split()
TAKES = {"train": 10, "val": 2, "test": 2}  # of each word by each speaker
VOICES = ("en+m1", "en+m3", "en+m7", "en+f1", "en+f2", "en+f4")
# First and second resonance in Hz; None is a hiss.
PARTS = ((300, 870), (640, 1190), (530, 1840), (270, 2290), (490, 1350), None)
PATTERNS = (  # of each word, places in PARTS
    (3, 0, 1), (0, 1, 4), (5, 0, 3), (2, 5, 0), (1, 1, 5), (4, 3, 3), (5, 3, 5), (2, 2, 1), (3, 5, 2), (1, 0, 0),
)  # fmt: skip


def about(builder: str) -> str:
    """What the recordings are a function of.

    Raises:
        FileNotFoundError: espeak-ng is asked for and not installed.
    """
    if builder == "tones":
        return "tones v1"
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError(
            "data.source=espeak: espeak-ng is not installed; type apt-get install espeak-ng, or data.source=tones"
        )
    told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    return f"espeak v1 {' '.join(told.split()[:4])}"


def made(builder: str, cache: Path, sha256: str) -> dict[str, Recordings]:
    """Recordings by split, with labels 0 to 9 and speakers."""
    speakers = len(VOICES)
    keys = {s: [(w, v, t) for t in range(n) for v in range(speakers) for w in range(10)] for s, n in TAKES.items()}
    if builder == "tones":
        made = {split: [(RATE, tone(split, *key)) for key in of] for split, of in keys.items()}
    else:
        folder, _ = kept(cache / "speech", (sha256, "v1"), lambda place: _synthesize(keys, place))
        made = {split: [Path(folder / _file(split, *key)).read_bytes() for key in of] for split, of in keys.items()}
    return {
        split: Recordings(
            made[split], [w for w, _, _ in of], [v for _, v, _ in of], place=f"data.source={builder}, {split}"
        )
        for split, of in keys.items()
    }


def tone(split: str, word: int, speaker: int, take: int) -> np.ndarray:
    """``(samples,)`` float32: one word of one speaker; every take is another, and always the same."""
    dice = np.random.default_rng([list(TAKES).index(split), word, speaker, take])
    pitch = (95, 120, 150, 180, 205, 230)[speaker] * dice.uniform(0.95, 1.05)
    size = (1.0, 0.95, 1.05, 1.15, 1.2, 1.1)[speaker] * dice.uniform(0.97, 1.03)  # of the resonances
    parts = []
    for part in PATTERNS[word]:
        count = int(RATE * dice.uniform(0.07, 0.15))
        at = np.arange(count) / RATE
        if PARTS[part] is None:
            sound = np.diff(dice.standard_normal(count + 1)) * 0.4
        else:
            harmonics = pitch * np.arange(1, int(3600 / pitch))
            loud = sum(1 / (1 + ((harmonics - size * peak) / 90) ** 2) for peak in PARTS[part])
            sound = loud @ np.sin(2 * np.pi * harmonics[:, None] * at + dice.uniform(0, 6.28, (len(harmonics), 1)))
        parts.append(sound * np.sin(np.pi * (np.arange(count) + 0.5) / count) ** 0.5)
    whole = np.concatenate(parts)
    return (0.1 * whole + 0.01 * dice.standard_normal(len(whole))).astype(np.float32)


def _file(split: str, word: int, speaker: int, take: int) -> str:
    return f"{split}-{word}-{speaker}-{take}.wav"


def _synthesize(keys: dict, folder: Path) -> dict:
    """A wav file of each recording; pitch and speed differ from take to take, and every take of a split."""
    for split, of in keys.items():
        for word, speaker, take in of:
            dice = np.random.default_rng([list(TAKES).index(split), word, speaker, take])
            how = ["-v", VOICES[speaker], "-p", str(dice.integers(30, 71)), "-s", str(dice.integers(130, 191))]
            done = subprocess.run(["espeak-ng", *how, "--stdout", WORDS[word]], capture_output=True)
            if done.returncode or not done.stdout.startswith(b"RIFF"):
                text = " ".join(done.stderr.decode(errors="replace").split())[:120]
                raise ValueError(f"data.source=espeak: espeak-ng failed ({text}); type data.source=tones")
            (folder / _file(split, word, speaker, take)).write_bytes(_mended(done.stdout))
    return {}


def _mended(wav: bytes) -> bytes:
    """espeak-ng writes to a pipe before it knows the length; a true one is put into the head."""
    from scipy.io import wavfile

    rate = int.from_bytes(wav[24:28], "little")
    stream = io.BytesIO()
    wavfile.write(stream, rate, np.frombuffer(wav[44:], dtype="<i2", count=(len(wav) - 44) // 2))
    return stream.getvalue()
