package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// copyPackages puts the packages of one format into a folder of the release, which becomes a repository, and returns
// the folder and the copies.
func (r release) copyPackages(folder, format string) (dir string, copies []string, err error) {
	if r.key == nil {
		return "", nil, errors.New("a repository needs -sign-key: hosts refuse one without a signature")
	}
	dir = filepath.Join(r.out, folder)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", nil, err
	}
	packages, err := filepath.Glob(filepath.Join(r.out, "*."+format))
	if err != nil || len(packages) == 0 {
		return "", nil, errors.Join(err, fmt.Errorf("no %[1]s package was built: add %[1]s to -kinds", format))
	}
	for _, file := range packages {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", nil, err
		}
		to := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return "", nil, err
		}
		copies = append(copies, to)
	}
	return dir, copies, nil
}

// publicKey returns the key that verifies what the release has signed.
func (r release) publicKey() ([]byte, error) {
	var key bytes.Buffer
	err := r.key.Serialize(&key)
	return key.Bytes(), err
}

// armoredKey returns that key as text.
func (r release) armoredKey() ([]byte, error) {
	var key bytes.Buffer
	w, err := armor.Encode(&key, openpgp.PublicKeyType, nil)
	if err != nil {
		return nil, err
	}
	err = errors.Join(r.key.Serialize(w), w.Close())
	return append(key.Bytes(), '\n'), err
}
