"""The files of the official release, by the names that users give, and the SHA-256 of each."""

RELEASE_URL = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0"

FILES = {
    "yolox_nano": "yolox_nano.pth",
    "yolox_tiny": "yolox_tiny.pth",
    "yolox_s": "yolox_s.pth",
    "yolox_m": "yolox_m.pth",
    "yolox_l": "yolox_l.pth",
    "yolox_x": "yolox_x.pth",
    "yolox_darknet": "yolox_darknet.pth",
    "yolox_darknet53": "yolox_darknet.pth",
}
# The release states no checksums. These are what public projects that download from RELEASE_URL verify or state, and
# several files agree on each. Only one list has yolox_darknet.pth, so that is checked as a weights file alone.
SHA256 = {
    "yolox_nano.pth": "cd28f55fbbc1829f99d9ac9b38a16d259a22889739c8728ea877610201feff7b",
    "yolox_tiny.pth": "9de513de589ac98bb92d3bca53b5af7b9acfa9b0bacb831f7999d0f7afaee8f0",
    "yolox_s.pth": "f55ded7181e1b0c13285c56e7790b8f0e8f8db590fe4edb37f0b7f345c913a30",
    "yolox_m.pth": "60076992b32da82951c90cfa7bd6ab70eba9eda243e08b940a396f60ac2d19b6",
    "yolox_l.pth": "1e6b7fa6240375370b2a8a8eab9066b3cdd43fd1d0bfa8d2027fd3a51def2917",
    "yolox_x.pth": "5652330b6ae860043f091b8f550a60c10e1129f416edfdb65c259be6caf355cf",
}
MOST_BYTES = 1 << 30  # yolox_x.pth, the largest, has 793,463,373
