package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"flanneld/api"
	"flanneld/backend/check"
	"flanneld/doctor"
	"flanneld/subnet"
	"flanneld/subnet/etcdv3"
)

func newNetwork(a *app) *cobra.Command {
	c := &cobra.Command{Use: "network", Short: "Show, check and change the network configuration", Args: arguments(0)}
	var force bool
	set := &cobra.Command{
		Use: "set JSON|@FILE|-", Short: "Check a network configuration, then write it", Args: arguments(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readConfig(args[0])
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), func(s *etcdv3.Store) error {
				snap, err := s.List(cmd.Context())
				if err != nil {
					return err
				}
				return a.writeConfig(cmd.Context(), s, snap, text, force)
			})
		},
	}
	edit := &cobra.Command{
		Use: "edit", Short: "Edit the network configuration in $EDITOR", Args: arguments(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.editConfig(cmd.Context(), force) },
	}
	for _, cmd := range []*cobra.Command{set, edit} {
		cmd.Flags().BoolVar(&force, "force", false, "write the configuration even if leases become unusable")
	}
	c.AddCommand(
		&cobra.Command{
			Use: "get", Short: "Print the network configuration in the store", Args: arguments(0),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.getConfig(cmd.Context()) },
		},
		&cobra.Command{
			Use: "validate JSON|@FILE|-", Short: "Check a network configuration without writing it", Args: arguments(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				text, err := readConfig(args[0])
				if err != nil {
					return err
				}
				if _, err := a.validate(cmd.Context(), text); err != nil {
					return err
				}
				return a.say("the network configuration is valid")
			},
		},
		set, edit, newMigrate(a),
	)
	return c
}

// readConfig reads a configuration from the argument, a file or the standard input.
func readConfig(arg string) ([]byte, error) {
	switch name, isFile := strings.CutPrefix(arg, "@"); {
	case isFile:
		return os.ReadFile(name)
	case arg == "-":
		return io.ReadAll(os.Stdin)
	}
	return []byte(arg), nil
}

func (a *app) getConfig(ctx context.Context) error {
	return a.withStore(ctx, func(s *etcdv3.Store) error {
		snap, err := s.List(ctx)
		if err != nil {
			return err
		}
		if snap.Config == nil {
			return errors.New("the store has no network configuration; \"flannelctl network set\" writes one")
		}
		if !json.Valid(snap.Config) {
			return fmt.Errorf("the network configuration is not valid JSON: %q", snap.Config)
		}
		return a.print(json.RawMessage(snap.Config), func(w page) { w.block(indented(snap.Config)) })
	})
}

func indented(text []byte) string {
	var b bytes.Buffer
	if json.Indent(&b, text, "", "  ") != nil {
		return string(text)
	}
	return b.String()
}

// validate checks all rules, and has the daemon check them too if one runs: it may be of another version.
func (a *app) validate(ctx context.Context, text []byte) (subnet.Config, error) {
	c, err := check.Network(text)
	if err != nil {
		return c, fmt.Errorf("invalid network configuration:\n%w", err)
	}
	var v api.Verdict
	switch err := a.daemon().Post(ctx, api.PathValidate, text, &v); {
	case errors.Is(err, api.ErrNoDaemon):
		return c, nil
	case err != nil:
		return c, err
	case v.Problem != "":
		return c, fmt.Errorf("the daemon of this host refuses the network configuration:\n%s", v.Problem)
	}
	return c, nil
}

// writeConfig writes a configuration in place of the one of the snapshot, unless it is wrong or leaves leases behind.
func (a *app) writeConfig(ctx context.Context, s *etcdv3.Store, snap subnet.Snapshot, text []byte, force bool) error {
	config, err := a.validate(ctx, text)
	if err != nil {
		return err
	}
	if err := check.Moves(config); err != nil {
		return fmt.Errorf("invalid network configuration:\n%w", err)
	}
	if lost := doctor.Unfit(config, snap.Entries); len(lost) > 0 && !force {
		return fmt.Errorf("%d of %d leases would become unusable; nothing was written (--force writes it):\n%s",
			len(lost), len(snap.Entries), strings.Join(lost[:min(len(lost), 10)], "\n"))
	}
	text = bytes.TrimSpace(text)
	if err := s.PutConfig(ctx, snap.Config, string(text)); err != nil {
		return err
	}
	done := "network configuration written"
	if snap.Config != nil {
		done += "; running daemons apply a changed network or backend when they restart: see \"pending\" in their status"
	}
	return a.say(done)
}

// editConfig has the operator change the configuration in a file.
func (a *app) editConfig(ctx context.Context, force bool) error {
	return a.withStore(ctx, func(s *etcdv3.Store) error {
		snap, err := s.List(ctx)
		if err != nil {
			return err
		}
		f, err := os.CreateTemp("", "flannel-network-*.json")
		if err != nil {
			return fmt.Errorf("create file to edit: %w", err)
		}
		_, err = f.WriteString(indented(snap.Config) + "\n")
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		text, err := runEditor(ctx, f.Name())
		if err != nil {
			return fmt.Errorf("%w (your text is in %s)", err, f.Name())
		}
		if bytes.Equal(bytes.TrimSpace(text), []byte(indented(snap.Config))) {
			return errors.Join(a.say("nothing changed"), os.Remove(f.Name()))
		}
		if err := a.writeConfig(ctx, s, snap, text, force); err != nil {
			return fmt.Errorf("%w (your text is in %s)", err, f.Name())
		}
		return os.Remove(f.Name())
	})
}

// runEditor runs $EDITOR, which may have arguments, on a file and returns what it then holds.
func runEditor(ctx context.Context, file string) ([]byte, error) {
	words := strings.Fields(os.Getenv("EDITOR"))
	if len(words) == 0 {
		words = []string{"vi"}
	}
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], file)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run editor %s: %w", words[0], err)
	}
	return os.ReadFile(file)
}
