package manual_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flanneld/dist/manual"
	"flanneld/need"
)

// help is the usage text of the daemon. The program takes a while to build.
var help = sync.OnceValues(func() ([]byte, error) {
	return exec.Command("go", "run", "flanneld/cmd/flanneld", "-help").CombinedOutput()
})

// usage returns the usage text of the daemon, parsed.
func usage(t *testing.T) manual.Usage {
	t.Helper()
	text, err := help()
	if err != nil {
		t.Fatalf("flanneld -help: %v\n%s", err, text)
	}
	u, err := manual.ParseUsage(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func flagNames(u manual.Usage) (names []string) {
	for _, g := range u.Groups {
		for _, f := range g.Flags {
			names = append(names, f.Name)
		}
	}
	return names
}

func TestTheConfigurationFileExplainsEveryVariable(t *testing.T) {
	lines := strings.Split(usage(t).Config(), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "#FLANNELD_") && !strings.HasPrefix(lines[i-1], "# ") {
			t.Errorf("%s: nothing above it explains it", line)
		}
		if line != "" && !strings.HasPrefix(line, "#") {
			t.Errorf("%q is in effect, want nothing to be", line)
		}
	}
}

func TestManualPageAndCompletionsNameEveryFlag(t *testing.T) {
	u := usage(t)
	for _, name := range flagNames(u) {
		for kind, is := range map[string]struct{ text, want string }{
			"man":  {u.Man(), `\-` + strings.ReplaceAll(name, "-", `\-`) + "\n"},
			"bash": {u.Bash(), "-" + name},
			"zsh":  {u.Zsh(), "'-" + name + "["},
			"fish": {u.Fish(), " -o " + name + " "},
		} {
			if !strings.Contains(is.text+"\n", is.want) && !(kind == "man" && strings.Contains(is.text, strings.TrimSpace(is.want)+" ")) {
				t.Errorf("%s has no -%s", kind, name)
			}
		}
	}
}

func TestTheManualPageIsTypesetWithoutAWarning(t *testing.T) {
	c := exec.Command(need.Program(t, "groff"), "-man", "-ww", "-Tutf8", "-z")
	c.Stdin = strings.NewReader(usage(t).Man())
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("groff: %v\n%s", err, out)
	}
}

func TestBashCompletesFlagsAndValues(t *testing.T) {
	file := filepath.Join(t.TempDir(), "flanneld.bash")
	if err := os.WriteFile(file, []byte(usage(t).Bash()), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ words, want string }{
		{"flanneld -etcd-embedded-", "-etcd-embedded-listen"},
		{"flanneld -on-lost-subnet h", "hold"},
		{"flanneld -iface e", ""},
	} {
		script := "source " + file + "; COMP_WORDS=(" + c.words + "); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _flanneld; echo ${COMPREPLY[*]}"
		out, err := exec.Command(need.Program(t, "bash"), "-c", script).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
			t.Errorf("%s: got %q (%v), want %q", c.words, got, err, c.want)
		}
	}
}

func TestALineOfTheUsageTextThatIsNotUnderstoodIsAnError(t *testing.T) {
	for _, text := range []string{"", "Store:\n", "Store:\n  --what\n", "Store:\n  -a x\n"} {
		if u, err := manual.ParseUsage(text); err == nil && len(flagNames(u)) > 0 {
			t.Errorf("%q: got %v, want an error", text, u)
		}
	}
}
