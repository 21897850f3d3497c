package manual_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flanneld/dist/manual"
	"flanneld/need"
	"flanneld/options"
)

func flagNames() (names []string) {
	for _, g := range options.Groups() {
		for _, f := range g.Flags {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestTheConfigurationFileExplainsEveryVariable(t *testing.T) {
	lines := strings.Split(manual.Config(), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "#FLANNELD_") && !strings.HasPrefix(lines[i-1], "# ") {
			t.Errorf("%s: nothing above it explains it", line)
		}
		if line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("%q is in effect, want nothing to be", line)
		}
	}
	for _, name := range flagNames() {
		has := func(line string) bool { return strings.HasPrefix(line, "#"+options.Variable(name)+"=") }
		if !slices.ContainsFunc(lines, has) && name != "version" {
			t.Errorf("-%s has no line", name)
		}
	}
}

func TestManualPageAndCompletionsNameEveryFlag(t *testing.T) {
	for _, name := range flagNames() {
		for kind, is := range map[string]struct{ text, want string }{
			"man":  {manual.Man(), `\-` + strings.ReplaceAll(name, "-", `\-`) + "\n"},
			"bash": {manual.Bash(), "-" + name},
			"zsh":  {manual.Zsh(), "'-" + name + "["},
			"fish": {manual.Fish(), " -o " + name + " "},
		} {
			if !strings.Contains(is.text+"\n", is.want) &&
				!(kind == "man" && strings.Contains(is.text, strings.TrimSpace(is.want)+" ")) {
				t.Errorf("%s has no -%s", kind, name)
			}
		}
	}
}

func TestTheManualPageIsTypesetWithoutAWarning(t *testing.T) {
	c := exec.Command(need.Program(t, "groff"), "-man", "-ww", "-Tutf8", "-z")
	c.Stdin = strings.NewReader(manual.Man())
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

func TestBashCompletesFlagsAndValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "flanneld.bash")
	if err := os.WriteFile(file, []byte(manual.Bash()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ words, want string }{
		{"flanneld -etcd-embedded-l", "-etcd-embedded-listen"},
		{"flanneld -on-lost-subnet h", "hold"},
		{"flanneld -iface e", ""},
	} {
		script := "source " + file + "; COMP_WORDS=(" + c.words +
			"); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _flanneld; echo ${COMPREPLY[*]}"
		out, err := exec.Command(need.Program(t, "bash"), "-c", script).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: got %q (%v), want %q", c.words, got, err, c.want)
		}
	}
}
