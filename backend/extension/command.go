package extension

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"flanneld/subnet"
)

const (
	// timeLimit ends a command that hangs, with all that it has started.
	timeLimit = 30 * time.Second
	// mostOutput bounds what is kept of each stream of a command, in bytes. Records hold no more either.
	mostOutput = 32 << 10
	// mostLogged bounds how much of it a line of the log or an error shows.
	mostLogged = 512
)

// runner runs commands, which end with ctx.
type runner struct {
	ctx   context.Context
	limit time.Duration
}

// run runs a command without a shell: variables in its words stand for values of the environment, to which vars are
// added, and a value stays one word. It returns what the command has printed on its standard output, and both streams
// for people.
func (r runner) run(words, vars []string, input string) (printed, said string, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.limit)
	defer cancel()
	env := append(environment(), vars...)
	args := expand(words, env)
	var out, errOut bounded
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, strings.NewReader(input), &out, &errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a process that it has left behind may keep the streams open
	err = cmd.Run()
	printed, said = strings.TrimSpace(out.String()),
		subnet.Brief(strings.TrimSpace(out.String()+errOut.String()), mostLogged)
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended well, and left a process behind
	case ctx.Err() != nil && r.ctx.Err() == nil:
		err = fmt.Errorf("%s: killed after the time limit of %s%s", words[0], r.limit, also(said))
	case err != nil:
		err = fmt.Errorf("%s: %w%s", words[0], err, also(said))
	}
	if err == nil && out.cut {
		err = fmt.Errorf("%s: its output exceeds %d bytes", words[0], mostOutput)
	}
	return printed, said, err
}

func also(said string) string {
	if said == "" {
		return ""
	}
	return ": " + said
}

// environment returns that of the daemon, without what is meant for it alone: its options, which may be passwords, and
// how it talks to systemd.
func environment() (out []string) {
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "FDSTORE":
			continue
		}
		if !strings.HasPrefix(name, "FLANNELD_") {
			out = append(out, v)
		}
	}
	return out
}

// expand replaces $NAME and ${NAME} in words; the last of several values counts.
func expand(words, env []string) []string {
	values := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = os.Expand(w, func(name string) string { return values[name] })
	}
	return out
}

// bounded keeps the first bytes of what is written to it.
type bounded struct {
	bytes.Buffer
	cut bool
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := min(len(p), mostOutput-b.Len())
	b.cut = b.cut || keep < len(p)
	_, _ = b.Buffer.Write(p[:keep])
	return len(p), nil
}
