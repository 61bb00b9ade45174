"""Yubico's own client library against the simulator, over the YubiHSM connector's HTTP interface.

SSHSM_TEST_URL names the connector of a factory-new device, SSHSM_TEST_VECTOR a certificate signing that real
hardware answered. Nothing here knows how the device is built; the expectations are YubiHSM 2's.
"""

import json
import os
import unittest

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from yubihsm import YubiHsm
from yubihsm.defs import ALGORITHM, CAPABILITY, ERROR, OBJECT, ORIGIN
from yubihsm.exceptions import YubiHsmAuthenticationError, YubiHsmDeviceError
from yubihsm.objects import AsymmetricKey, AuthenticationKey, Template

DEFAULT_KEY, DEFAULT_PASSWORD = 1, "password"
ALL_DOMAINS = 0xFFFF
MESSAGE = b"a message to be signed"
USED_ALGORITHMS = {
    ALGORITHM.AES128_YUBICO_AUTHENTICATION,
    ALGORITHM.TEMPLATE_SSH,
    ALGORITHM.RSA_PKCS1_SHA1,
    ALGORITHM.RSA_PKCS1_SHA256,
    ALGORITHM.RSA_PKCS1_SHA512,
    ALGORITHM.RSA_2048,
    ALGORITHM.RSA_3072,
    ALGORITHM.RSA_4096,
    ALGORITHM.EC_P256,
    ALGORITHM.EC_P384,
    ALGORITHM.EC_P521,
    ALGORITHM.EC_ED25519,
}


class DeviceTest(unittest.TestCase):
    """A connection and an authenticated session for each test."""

    def setUp(self):
        self.hsm = YubiHsm.connect(os.environ["SSHSM_TEST_URL"])
        self.addCleanup(self.hsm.close)
        self.session = self.hsm.create_session_derived(DEFAULT_KEY, DEFAULT_PASSWORD)
        self.addCleanup(self.session.close)

    def assert_device_error(self, code, action, *arguments):
        with self.assertRaises(YubiHsmDeviceError) as refused:
            action(*arguments)
        self.assertEqual(refused.exception.code, code)

    def generate(self, algorithm, capabilities):
        key = AsymmetricKey.generate(
            self.session, 0, "generated", ALL_DOMAINS, capabilities, algorithm
        )
        self.addCleanup(key.delete)
        return key


class Everyday(DeviceTest):
    def test_device_info_is_a_yubihsm_2s(self):
        info = self.hsm.get_device_info()
        self.assertEqual(info.version[0], 2)
        self.assertGreater(info.serial, 0)
        self.assertGreaterEqual(info.log_size, info.log_used)
        self.assertGreaterEqual(info.supported_algorithms, USED_ALGORITHMS)
        if info.version >= (2, 4, 0):
            self.assertTrue(info.part_number)

    def test_echo_returns_what_was_sent(self):
        for length in [1, 15, 16, 17, 255, 1024, 2021]:
            data = os.urandom(length)
            self.assertEqual(self.session.send_secure_cmd(0x01, data), data)
            self.assertEqual(self.hsm.send_cmd(0x01, data), data)

    def test_the_default_authentication_key_is_listed_and_described(self):
        (key,) = self.session.list_objects(
            object_id=DEFAULT_KEY, object_type=OBJECT.AUTHENTICATION_KEY
        )
        info = key.get_info()
        self.assertEqual(info.label, "DEFAULT AUTHKEY CHANGE THIS ASAP")
        self.assertEqual(info.algorithm, ALGORITHM.AES128_YUBICO_AUTHENTICATION)
        self.assertEqual(info.origin, ORIGIN.IMPORTED)
        self.assertEqual(info.domains, ALL_DOMAINS)
        self.assertEqual(info.capabilities, 0xFFFFFFFFFFFFFFFF)
        self.assertEqual(info.delegated_capabilities, 0xFFFFFFFFFFFFFFFF)

    def test_pseudo_random_bytes_differ(self):
        draws = {self.session.get_pseudo_random(32) for _ in range(8)}
        self.assertEqual({len(draw) for draw in draws}, {32})
        self.assertEqual(len(draws), 8)

    def test_generated_objects_are_listed_described_and_deleted(self):
        capabilities = CAPABILITY.SIGN_ECDSA | CAPABILITY.SIGN_SSH_CERTIFICATE
        key = AsymmetricKey.generate(
            self.session, 0, "läbel 🔑", 0b101, capabilities, ALGORITHM.EC_P256
        )

        def listed():
            return [found.id for found in self.session.list_objects(object_type=OBJECT.ASYMMETRIC_KEY)]

        self.assertIn(key.id, listed())
        info = key.get_info()
        self.assertEqual(
            (info.id, info.label, info.domains, info.capabilities, info.algorithm, info.origin),
            (key.id, "läbel 🔑", 0b101, capabilities, ALGORITHM.EC_P256, ORIGIN.GENERATED),
        )
        key.delete()
        self.assertNotIn(key.id, listed())
        self.assert_device_error(ERROR.OBJECT_NOT_FOUND, key.get_info)

    def test_ecdsa_signatures_verify(self):
        for algorithm, curve, digest in [
            (ALGORITHM.EC_P256, ec.SECP256R1, hashes.SHA256()),
            (ALGORITHM.EC_P384, ec.SECP384R1, hashes.SHA384()),
            (ALGORITHM.EC_P521, ec.SECP521R1, hashes.SHA512()),
        ]:
            key = self.generate(algorithm, CAPABILITY.SIGN_ECDSA)
            public = key.get_public_key()
            self.assertIsInstance(public.curve, curve)
            signature = key.sign_ecdsa(MESSAGE, digest)
            public.verify(signature, MESSAGE, ec.ECDSA(digest))
            with self.assertRaises(InvalidSignature):
                public.verify(signature, MESSAGE + b"!", ec.ECDSA(digest))

    def test_eddsa_signatures_verify(self):
        key = self.generate(ALGORITHM.EC_ED25519, CAPABILITY.SIGN_EDDSA)
        for message in [b"", MESSAGE, os.urandom(2000)]:
            key.get_public_key().verify(key.sign_eddsa(message), message)

    def test_rsa_signatures_of_an_imported_key_verify(self):
        private = rsa.generate_private_key(65537, 2048)
        key = AsymmetricKey.put(
            self.session, 0, "imported", ALL_DOMAINS, CAPABILITY.SIGN_PKCS, private
        )
        self.addCleanup(key.delete)
        self.assertEqual(key.get_public_key().public_numbers(), private.public_key().public_numbers())
        private.public_key().verify(
            key.sign_pkcs1v1_5(MESSAGE), MESSAGE, padding.PKCS1v15(), hashes.SHA256()
        )

    def test_imported_keys_are_the_ones_given(self):
        for private, capability in [
            (ec.generate_private_key(ec.SECP256R1()), CAPABILITY.SIGN_ECDSA),
            (ec.generate_private_key(ec.SECP384R1()), CAPABILITY.SIGN_ECDSA),
            (ec.generate_private_key(ec.SECP521R1()), CAPABILITY.SIGN_ECDSA),
            (ed25519.Ed25519PrivateKey.generate(), CAPABILITY.SIGN_EDDSA),
        ]:
            key = AsymmetricKey.put(self.session, 0, "", ALL_DOMAINS, capability, private)
            self.addCleanup(key.delete)
            self.assertEqual(key.get_public_key(), private.public_key())
            self.assertEqual(key.get_info().origin, ORIGIN.IMPORTED)

    def test_a_key_does_only_what_its_capabilities_say(self):
        key = self.generate(ALGORITHM.EC_P256, CAPABILITY.SIGN_SSH_CERTIFICATE)
        self.assert_device_error(ERROR.INSUFFICIENT_PERMISSIONS, key.sign_ecdsa, MESSAGE)

    def test_an_id_is_given_only_once(self):
        key = self.generate(ALGORITHM.EC_P256, CAPABILITY.NONE)
        self.assert_device_error(
            ERROR.OBJECT_EXISTS,
            AsymmetricKey.generate,
            *(self.session, key.id, "", ALL_DOMAINS, CAPABILITY.NONE, ALGORITHM.EC_P256),
        )

    def test_a_wrong_password_opens_no_session(self):
        with self.assertRaises(YubiHsmAuthenticationError):
            self.hsm.create_session_derived(DEFAULT_KEY, "Password")
        self.assertTrue(self.session.get_pseudo_random(1), "the open session lives on")

    def test_an_unknown_authentication_key_is_not_found(self):
        self.assert_device_error(
            ERROR.OBJECT_NOT_FOUND, self.hsm.create_session_derived, 0x7FFE, DEFAULT_PASSWORD
        )

    def test_a_unicode_password_opens_a_session_without_capabilities(self):
        password = "\U0001f511 κόσμε"
        key = AuthenticationKey.put_derived(
            self.session, 0, "unicode", ALL_DOMAINS, CAPABILITY.NONE, CAPABILITY.NONE, password
        )
        self.addCleanup(key.delete)
        with self.hsm.create_session_derived(key.id, password) as session:
            data = os.urandom(256)
            self.assertEqual(session.send_secure_cmd(0x01, data), data)
            self.assert_device_error(
                ERROR.INSUFFICIENT_PERMISSIONS, session.get_pseudo_random, 8
            )

    def test_a_changed_password_replaces_the_old_one(self):
        key = AuthenticationKey.put_derived(
            self.session,
            0,
            "changing",
            ALL_DOMAINS,
            CAPABILITY.CHANGE_AUTHENTICATION_KEY,
            CAPABILITY.NONE,
            "first",
        )
        self.addCleanup(key.delete)
        with self.hsm.create_session_derived(key.id, "first") as session:
            key.with_session(session).change_password("second")
        with self.assertRaises(YubiHsmAuthenticationError):
            self.hsm.create_session_derived(key.id, "first")
        self.hsm.create_session_derived(key.id, "second").close()

    def test_sessions_are_independent(self):
        with self.hsm.create_session_derived(DEFAULT_KEY, DEFAULT_PASSWORD) as second:
            for _ in range(3):
                for session in (self.session, second):
                    self.assertEqual(len(session.get_pseudo_random(16)), 16)
        self.assertEqual(len(self.session.get_pseudo_random(16)), 16)

    def test_a_template_is_stored_as_it_is(self):
        data = os.urandom(512)
        template = Template.put(
            self.session, 0, "random", ALL_DOMAINS, CAPABILITY.NONE, ALGORITHM.TEMPLATE_SSH, data
        )
        self.addCleanup(template.delete)
        self.assertEqual(template.get(), data)


class HardwareVector(DeviceTest):
    """A certificate that real hardware signed, asked for again."""

    def setUp(self):
        super().setUp()
        with open(os.environ["SSHSM_TEST_VECTOR"], encoding="utf-8") as file:
            vector = json.load(file)
        ca_key, template, sign = vector["ca_key"], vector["template"], vector["sign"]
        p, q, e = int(ca_key["p"], 16), int(ca_key["q"], 16), ca_key["e"]
        d = pow(e, -1, (p - 1) * (q - 1))
        public = rsa.RSAPublicNumbers(e, p * q)
        private = rsa.RSAPrivateNumbers(
            p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), public
        )
        domains = sum(1 << (domain - 1) for domain in ca_key["domains"])
        self.key = AsymmetricKey.put(
            self.session,
            ca_key["object_id"],
            "certificate authority",
            domains,
            CAPABILITY.SIGN_SSH_CERTIFICATE,
            private.private_key(),
        )
        self.addCleanup(self.key.delete)
        self.template = Template.put(
            self.session,
            template["object_id"],
            "template",
            domains,
            CAPABILITY.NONE,
            ALGORITHM.TEMPLATE_SSH,
            bytes.fromhex(template["bytes"]),
        )
        self.addCleanup(self.template.delete)
        self.request = (
            sign["now"].to_bytes(4, "big")
            + bytes.fromhex(sign["timestamp_signature"])
            + bytes.fromhex(sign["request"])
        )
        self.response = bytes.fromhex(vector["response"])

    def test_the_answer_is_the_hardwares_byte_for_byte(self):
        answer = self.key.sign_ssh_certificate(self.template.id, self.request)
        self.assertEqual(answer.hex(), self.response.hex())

    def test_a_request_that_differs_in_one_bit_is_refused(self):
        for position in (0, 3, 4, 4 + 255, 4 + 256, len(self.request) - 1):
            changed = bytearray(self.request)
            changed[position] ^= 1
            with self.subTest(position=position), self.assertRaises(YubiHsmDeviceError):
                self.key.sign_ssh_certificate(self.template.id, bytes(changed))


if __name__ == "__main__":
    unittest.main()
