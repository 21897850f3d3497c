// Command generate writes the manual pages, the configuration file and the shell completions.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"flanneld/dist/manual"
)

// files are the names of what is written, each with its renderer.
var files = map[string]func() string{
	"flanneld.8":    manual.Man,
	"flanneld.conf": manual.Config,
	"flanneld.bash": manual.Bash,
	"_flanneld":     manual.Zsh,
	"flanneld.fish": manual.Fish,
}

func main() {
	control := flag.String("flannelctl", "build/flannelctl", "`program` whose commands are explained")
	out := flag.String("o", "build/manual", "`folder` to write to")
	flag.Parse()
	err := run(*out)
	if err == nil {
		err = runControl(*control, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, render := range files {
		if err := os.WriteFile(filepath.Join(out, name), []byte(render()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// runControl writes the manual page of flannelctl, which renders it from the definitions of its commands.
func runControl(program, out string) error {
	text, err := exec.Command(program, "manual").Output()
	if err != nil {
		return fmt.Errorf("%s manual: %w", program, err)
	}
	return os.WriteFile(filepath.Join(out, "flannelctl.1"), text, 0o644)
}
