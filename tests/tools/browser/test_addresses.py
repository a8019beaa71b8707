"""Which addresses are public."""

from __future__ import annotations

import pytest

from gptoss_mlx.tools.browser.addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "151.101.0.81", "172.32.0.1", "100.128.0.1", "223.255.255.254"),
        *("2606:4700::1", "2a00:1450:400f:80c::200e", "2001:4860:4860::8888"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808"),  # IPv4, mapped and translated
    ],
)
def test_public_addresses(address: str) -> None:
    """Addresses of the internet are, also in the clothes of IPv6."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1"),
        *("127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
        *("192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.1"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0"),
        *("fec0::1", "ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "5f00::1"),
        *("100::1", "64:ff9b:1::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "", "localhost", "1.2.3", "2130706433"),
    ],
)
def test_other_addresses(address: str) -> None:
    """Private, local, metadata, multicast, reserved and tunnelled ones are not; nor is nonsense."""
    assert not is_public(address)
