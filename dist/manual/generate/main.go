// Command generate writes the manual page, the configuration file and the shell completions of flanneld.
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
var files = map[string]func(manual.Usage) string{
	"flanneld.8":    func(u manual.Usage) string { return u.Man() },
	"flanneld.conf": func(u manual.Usage) string { return u.Config() },
	"flanneld.bash": func(u manual.Usage) string { return u.Bash() },
	"_flanneld":     func(u manual.Usage) string { return u.Zsh() },
	"flanneld.fish": func(u manual.Usage) string { return u.Fish() },
}

func main() {
	program := flag.String("flanneld", "build/flanneld", "`program` whose flags are explained")
	out := flag.String("o", "build/manual", "`folder` to write to")
	flag.Parse()
	if err := run(*program, *out); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(program, out string) error {
	text, err := exec.Command(program, "-help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s -help: %w", program, err)
	}
	u, err := manual.ParseUsage(string(text))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for name, render := range files {
		if err := os.WriteFile(filepath.Join(out, name), []byte(render(u)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
