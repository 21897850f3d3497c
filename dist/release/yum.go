package main

import (
	"crypto/sha256"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cavaliergopher/rpm"
)

// yumFolder is the repository for dnf, yum and zypper, to be served as it is.
const yumFolder = "yum"

// writeYum makes a repository of the release's packages, which are signed themselves; their list is signed, too.
//
//	yum/flanneld-….rpm                    the packages
//	yum/repodata/SUM-primary.xml.gz       what they say of themselves, with their checksums
//	yum/repodata/SUM-filelists.xml.gz     their files
//	yum/repodata/SUM-other.xml.gz         their changelogs, which are empty
//	yum/repodata/repomd.xml, repomd.xml.asc  the checksums of those lists, signed
//	yum/flanneld.asc                      the key that verifies all signatures
//	yum/flanneld.repo                     the configuration of a host, if it is known where the repository is served
func (r release) writeYum() error {
	dir, files, err := r.copyPackages(yumFolder, "rpm")
	if err != nil {
		return err
	}
	var lists yumLists
	for _, file := range files {
		if err := lists.add(file); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	if err := r.writeRepodata(filepath.Join(dir, "repodata"), lists); err != nil {
		return err
	}
	key, err := r.armoredKey()
	if err := errors.Join(err, os.WriteFile(filepath.Join(dir, "flanneld.asc"), key, 0o644)); err != nil || r.url == "" {
		return err
	}
	url := strings.TrimSuffix(r.url, "/") + "/" + yumFolder
	return os.WriteFile(filepath.Join(dir, "flanneld.repo"), fmt.Appendf(nil, `[flanneld]
name=flanneld
baseurl=%s
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=%s/flanneld.asc
`, url, url), 0o644)
}

// writeRepodata writes the lists, the list of them, and its signature.
func (r release) writeRepodata(dir string, lists yumLists) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	at := r.time.Unix()
	index := repomd{Space: repoSpace + "repo", RPM: repoSpace + "rpm", Revision: at}
	for _, l := range lists.all() {
		text, err := marshal(l.list)
		if err != nil {
			return err
		}
		z, err := gzipped(text)
		if err != nil {
			return err
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(z))
		name := sum + "-" + l.name + ".xml.gz"
		if err := os.WriteFile(filepath.Join(dir, name), z, 0o644); err != nil {
			return err
		}
		index.Data = append(index.Data, repomdData{
			Type: l.name, Checksum: checksum{Type: "sha256", Sum: sum},
			Open:     checksum{Type: "sha256", Sum: fmt.Sprintf("%x", sha256.Sum256(text))},
			Location: location{"repodata/" + name}, Timestamp: at, Size: len(z), OpenSize: len(text),
		})
	}
	text, err := marshal(index)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "repomd.xml")
	return errors.Join(os.WriteFile(file, text, 0o644), r.sign(file))
}

func marshal(v any) ([]byte, error) {
	text, err := xml.MarshalIndent(v, "", "  ")
	return []byte(xml.Header + string(text) + "\n"), err
}

// yumLists are what the lists of a repository have, one entry for each package.
type yumLists struct {
	primary   []primary
	filelists []filelist
	other     []described
}

// add reads what a package says of itself.
func (l *yumLists) add(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	p, err := rpm.Open(file)
	if err != nil {
		return err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(text))
	d := described{
		ID: sum, Name: p.Name(), Arch: p.Architecture(),
		Version: evr{p.Epoch(), p.Version(), p.Release()},
	}
	var files []fileEntry
	for _, f := range p.Files() {
		e := fileEntry{Path: f.Name()}
		if f.IsDir() {
			e.Type = "dir"
		}
		files = append(files, e)
	}
	start, end := p.HeaderRange()
	l.primary = append(l.primary, primary{
		Type: "rpm", Name: d.Name, Arch: d.Arch, Version: d.Version,
		Checksum: checksum{Type: "sha256", ID: "YES", Sum: sum}, Summary: p.Summary(), Description: p.Description(),
		Packager: p.Packager(), URL: p.URL(), Time: times{p.BuildTime().Unix(), p.BuildTime().Unix()},
		Size: sizes{len(text), p.Size(), p.ArchiveSize()}, Location: location{filepath.Base(file)},
		Format: format{
			License: p.License(), Vendor: p.Vendor(), Group: strings.Join(p.Groups(), " "), BuildHost: p.BuildHost(),
			SourceRPM: p.SourceRPM(), Header: byteRange{start, end}, Provides: entries(p.Provides()),
			Requires: entries(p.Requires()), Recommends: entries(p.Recommends()), Files: usual(files),
		},
	})
	l.filelists = append(l.filelists, filelist{described: d, Files: files})
	l.other = append(l.other, d)
	return nil
}

// entries returns relations to other packages, without those to features of rpm itself, which lists leave out.
func entries(deps []rpm.Dependency) *relations {
	var out relations
	for _, d := range deps {
		if strings.HasPrefix(d.Name(), "rpmlib(") {
			continue
		}
		e := relation{Name: d.Name()}
		comparison := d.Flags() & (rpm.DepFlagLesser | rpm.DepFlagGreater | rpm.DepFlagEqual)
		if e.Flags = comparisons[comparison]; e.Flags != "" {
			epoch := d.Epoch()
			e.Epoch, e.Version, e.Release = &epoch, d.Version(), d.Release()
		}
		out.Entries = append(out.Entries, e)
	}
	if len(out.Entries) == 0 {
		return nil
	}
	return &out
}

var comparisons = map[int]string{
	rpm.DepFlagLesser: "LT", rpm.DepFlagGreater: "GT", rpm.DepFlagEqual: "EQ",
	rpm.DepFlagLesserOrEqual: "LE", rpm.DepFlagGreaterOrEqual: "GE",
}

// usual returns the files that the primary list has, because other packages may require them by path.
func usual(files []fileEntry) (out []fileEntry) {
	for _, f := range files {
		if strings.HasPrefix(f.Path, "/etc/") || strings.Contains(f.Path, "bin/") {
			out = append(out, f)
		}
	}
	return out
}
