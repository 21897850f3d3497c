package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeNotes writes the release notes: the section of the changelog that has this version, or what is not released yet.
func (r release) writeNotes() error {
	text, err := os.ReadFile(filepath.Join(r.root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	body, found := section(string(text), r.version.upgrade)
	if !found {
		body, found = section(string(text), "Unreleased")
	}
	if !found {
		return fmt.Errorf("CHANGELOG.md has neither a section %q nor \"Unreleased\"", r.version.upgrade)
	}
	file := filepath.Join(r.out, "flanneld-"+r.version.upgrade+"-notes.md")
	return os.WriteFile(file, []byte("# flanneld "+r.version.git+"\n\n"+body), 0o644)
}

// section returns what stands below a heading of the second level; a date may follow its title.
func section(text, title string) (body string, found bool) {
	var lines []string
	for line := range strings.Lines(text) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			if found {
				break
			}
			fields := strings.Fields(heading)
			found = len(fields) > 0 && strings.TrimPrefix(fields[0], "v") == title
			continue
		}
		if found {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, "")) + "\n", found
}
