package embedded

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"flanneld/subnet/etcdv3/authority"
	"flanneld/subnet/etcdv3/join"
	"flanneld/trigger"
)

// Joiner is a host that joins a secured store, or has joined it.
type Joiner struct {
	Client   join.Client
	Token    join.Token
	Services []string // HOST:PORT, of the flag
	Log      *slog.Logger
}

// Join returns once this host has credentials for the store, or ctx ends. Those of an earlier run are used without
// asking anybody: the members may be away. waiting is told why it takes long.
func (j Joiner) Join(ctx context.Context, waiting func(error)) {
	if join.HasJoined(j.Client.Folder, j.Token.CA) && (!j.Client.Member || j.Client.Folder.HasAuthority()) {
		return
	}
	err := repeat(ctx, func() error {
		_, err := j.Client.Join(ctx, j.Token, j.Services)
		return err
	}, func(err error) {
		j.Log.Warn("cannot join the store, retrying", "reason", err)
		waiting(err)
	})
	if err == nil {
		j.Log.Info("joined the store", "token", j.Token.ID)
	}
}

// Store is what a Joiner tells of changes.
type Store interface {
	Move(endpoints []string) // the members have other addresses
	Redial()                 // there are other credentials
	// Members returns the endpoints of the members as the store has them.
	Members(context.Context) ([]string, error)
}

// followPause is how long a change of the members goes unnoticed by a host.
const followPause = time.Minute

// Keep renews the credentials in time, and follows the members to other addresses, until ctx ends. A host that was
// removed joins again with a token that it has not used yet.
func (j Joiner) Keep(ctx context.Context, s Store) {
	last := ""
	var seen []string
	for pause := retryPause; ctx.Err() == nil; {
		now, again, err := j.renew(ctx)
		if err == nil {
			s.Move(now.Endpoints)
		}
		if again {
			s.Redial()
		}
		wait := renewPause
		if err != nil {
			wait, pause = pause, min(2*pause, renewPause/12)
			j.say(err, &last)
		} else {
			pause, last = retryPause, ""
		}
		seen = await(ctx, s, wait, seen)
	}
}

// await returns after a while, or when the members are others than those seen. It returns what it has seen last.
func await(ctx context.Context, s Store, wait time.Duration, seen []string) []string {
	for until := time.Now().Add(wait); ctx.Err() == nil && time.Now().Before(until); {
		now, err := s.Members(ctx)
		if err == nil && seen != nil && !slices.Equal(now, seen) {
			return now
		}
		if err == nil {
			seen = now
		}
		_ = trigger.Pause(ctx, min(time.Until(until), followPause))
	}
	return seen
}

// say logs why the certificate was not renewed, once for each reason: loudly when it is due.
func (j Joiner) say(err error, last *string) {
	text := err.Error()
	if text == *last {
		return
	}
	*last = text
	level := slog.LevelDebug
	if cert, e := j.Client.Folder.Certificate(authority.Host); e != nil || authority.Due(cert, time.Now()) {
		level = slog.LevelWarn
	}
	j.Log.Log(context.Background(), level, "certificate for the store not renewed, retrying", "reason", text)
}

// renew asks for a new certificate, and learns the present members. It reports whether this host has joined anew.
func (j Joiner) renew(ctx context.Context) (now join.Joined, again bool, err error) {
	have, _ := join.Load(j.Client.Folder)
	for _, service := range j.Services { // those that the members say come first
		if !slices.Contains(have.Services, service) {
			have.Services = append(have.Services, service)
		}
	}
	if now, err = j.Client.Renew(ctx, have); err == nil || have.Token == j.Token.ID || ctx.Err() != nil {
		return now, false, err
	}
	now, err = j.Client.Join(ctx, j.Token, j.Services)
	if err == nil {
		j.Log.Info("joined the store again", "token", j.Token.ID)
	}
	return now, err == nil, err
}
