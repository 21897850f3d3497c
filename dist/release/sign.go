package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// readKey returns the OpenPGP key in a file, which has no passphrase: keep it where only the release is built.
func readKey(file string) (*openpgp.Entity, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := openpgp.ReadArmoredKeyRing(f)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	if len(keys) != 1 || keys[0].PrivateKey == nil || keys[0].PrivateKey.Encrypted {
		return nil, fmt.Errorf("%s: want one private key without passphrase, as by gpg --export-secret-keys --armor", file)
	}
	return keys[0], nil
}

// sign writes a detached signature beside a file.
func (r release) sign(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, r.key, bytes.NewReader(text), r.signing()); err != nil {
		return fmt.Errorf("sign %s: %w", file, err)
	}
	return os.WriteFile(file+".asc", append(b.Bytes(), '\n'), 0o644)
}

// signature returns a detached signature of what the reader has, as rpm wants it in packages.
func (r release) signature(data io.Reader) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.DetachSign(&b, r.key, data, r.signing())
	return b.Bytes(), err
}

// signing says how signatures are made. Their time is that of the release, or that of a key which is younger: two runs
// write the same bytes, if the algorithm of the key does (Ed25519, RSA).
func (r release) signing() *packet.Config {
	at := r.time
	if made := r.key.PrimaryKey.CreationTime; made.After(at) {
		at = made
	}
	salted := false
	return &packet.Config{Time: func() time.Time { return at }, NonDeterministicSignaturesViaNotation: &salted}
}
