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

// runControl has flannelctl write its manual pages, one for each command, from the definitions of its commands.
func runControl(program, out string) error {
	if text, err := exec.Command(program, "manual", out).CombinedOutput(); err != nil {
		return fmt.Errorf("%s manual: %w\n%s", program, err, text)
	}
	return nil
}
