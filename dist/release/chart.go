package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// writeChart packs the Helm chart, with the version and the tag of this release's image.
func (r release) writeChart() error {
	from, stage := filepath.Join(r.root, "dist/kubernetes/chart"), filepath.Join(r.out, "stage/chart")
	version := strings.ReplaceAll(r.version.upgrade, "~", "-") // semantic versions have no tilde
	replaced := map[string]*strings.Replacer{
		"Chart.yaml": strings.NewReplacer("\nversion: 0.1.0", "\nversion: "+version,
			"\nappVersion: latest", "\nappVersion: "+r.version.tag()),
		"values.yaml": strings.NewReplacer("    tag: latest\n", "    tag: "+r.version.tag()+"\n"),
	}
	var items []item
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if with := replaced[rel]; with != nil {
			if p, err = replace(p, filepath.Join(stage, rel), with); err != nil {
				return err
			}
		}
		items = append(items, plain(p, "/flannel/"+filepath.ToSlash(rel)))
		return nil
	})
	if err != nil {
		return err
	}
	return r.writeCompressed(filepath.Join(r.out, "flannel-"+version+".tgz"), of(items, ""))
}

// replace writes a file of which something is replaced, and fails if there is nothing to replace.
func replace(from, to string, with *strings.Replacer) (string, error) {
	text, err := os.ReadFile(from)
	if err != nil {
		return "", err
	}
	changed := with.Replace(string(text))
	if changed == string(text) {
		return "", fmt.Errorf("%s has no version to replace", from)
	}
	return to, errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, []byte(changed), 0o644))
}
