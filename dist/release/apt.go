package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/blakesmith/ar"
)

// aptFolder is the repository for apt, to be served as it is.
const aptFolder = "apt"

// writeApt makes a repository of the release's packages for apt: a flat one, signed, with the public key beside it.
//
//	apt/flanneld_….deb          the packages
//	apt/Packages, Packages.gz   what they say of themselves, with their checksums
//	apt/InRelease               the checksums of those, signed
//	apt/flanneld.gpg            the key that verifies it
func (r release) writeApt() error {
	dir, packages, err := r.copyPackages(aptFolder, "deb")
	if err != nil {
		return err
	}
	var index bytes.Buffer
	for _, file := range packages {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		stanza, err := control(text)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		fmt.Fprintf(&index, "%s\nFilename: ./%s\nSize: %d\nSHA256: %x\n\n", strings.TrimSpace(stanza), filepath.Base(file),
			len(text), sha256.Sum256(text))
	}
	list := filepath.Join(dir, "Packages")
	z, err := gzipped(index.Bytes())
	if err := errors.Join(err, os.WriteFile(list, index.Bytes(), 0o644), os.WriteFile(list+".gz", z, 0o644)); err != nil {
		return err
	}
	key, err := r.publicKey()
	return errors.Join(err, os.WriteFile(filepath.Join(dir, "flanneld.gpg"), key, 0o644), r.writeInRelease(dir))
}

// control returns what a deb says of itself.
func control(deb []byte) (string, error) {
	files := ar.NewReader(bytes.NewReader(deb))
	for {
		h, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("read control.tar.gz: %w", err)
		}
		if strings.TrimSuffix(strings.TrimSpace(h.Name), "/") == "control.tar.gz" {
			break
		}
	}
	z, err := gzip.NewReader(files)
	if err != nil {
		return "", err
	}
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err != nil {
			return "", fmt.Errorf("read control: %w", err)
		}
		if strings.TrimPrefix(h.Name, "./") == "control" {
			text, err := io.ReadAll(tr)
			return string(text), err
		}
	}
}

// writeInRelease writes the signed list of the indexes. It has no end of validity: a release is not updated.
func (r release) writeInRelease(dir string) error {
	arches := slices.Sorted(slices.Values(r.arches))
	text := fmt.Sprintf("Origin: flanneld\nLabel: flanneld\nSuite: stable\nDate: %s\nArchitectures: %s\nSHA256:\n",
		r.time.Format("Mon, 02 Jan 2006 15:04:05 UTC"), strings.Join(arches, " "))
	for _, name := range []string{"Packages", "Packages.gz"} {
		index, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		text += fmt.Sprintf(" %x %d %s\n", sha256.Sum256(index), len(index), name)
	}
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, r.key.PrivateKey, r.signing())
	if err != nil {
		return fmt.Errorf("sign InRelease: %w", err)
	}
	_, err = io.WriteString(w, text)
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("sign InRelease: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, "InRelease"), append(signed.Bytes(), '\n'), 0o644)
}
