package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// archiveItems returns all files of all packages, as they stand in the archive for distributions without packages.
func archiveItems(s stage) (all []item) {
	for _, p := range packages(s) {
		all = append(all, of(p.items, "rpm")...)
	}
	return of(all, "rpm")
}

// writeArchive makes the archive, to be unpacked in the root of a host.
func (r release) writeArchive(s stage) error {
	name := fmt.Sprintf("flanneld-%s-linux-%s.tar.gz", r.version.upgrade, s.arch)
	return r.writeCompressed(filepath.Join(r.out, name), archiveItems(s))
}

// writeCompressed makes a compressed archive.
func (r release) writeCompressed(file string, items []item) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewWriterLevel(f, gzip.DefaultCompression)
	if err != nil {
		return err
	}
	return errors.Join(writeTar(z, items, r.time), z.Close())
}

// writeTar writes files and the folders above them, in order, all of root's and of one time.
func writeTar(w io.Writer, items []item, at time.Time) error {
	t := tar.NewWriter(w)
	made := map[string]bool{}
	for _, i := range items {
		to := strings.TrimPrefix(i.to, "/")
		for _, dir := range above(to) {
			if made[dir] {
				continue
			}
			made[dir] = true
			if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: at,
				Format: tar.FormatPAX}); err != nil {
				return err
			}
		}
		if err := writeItem(t, i, to, at); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeItem(t *tar.Writer, i item, to string, at time.Time) error {
	if i.link {
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: to, Linkname: i.from, Mode: 0o777, ModTime: at,
			Format: tar.FormatPAX})
	}
	text, err := os.ReadFile(i.from)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: int64(i.mode.Perm()), Size: int64(len(text)), ModTime: at,
		Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	_, err = t.Write(text)
	return err
}

// above returns the folders that a file lies in, the outermost first.
func above(name string) (dirs []string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// compress replaces a file by its gzip form, which has no name and no time in it.
func compress(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	z, err := gzipped(text)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(file+".gz", z, 0o644), os.Remove(file))
}

func gzipped(text []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(text)
	err = errors.Join(err, z.Close())
	return b.Bytes(), err
}

// writeSums writes the checksums of everything that is published, in the form of sha256sum, and signs them if there is
// a key.
func (r release) writeSums() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		if e.Type() != fs.FileMode(0) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(text), e.Name())
	}
	file := filepath.Join(r.out, "SHA256SUMS")
	if err := os.WriteFile(file, []byte(sums.String()), 0o644); err != nil || r.key == nil {
		return err
	}
	return r.sign(file)
}
