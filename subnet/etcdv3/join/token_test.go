package join_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"flanneld/subnet/etcdv3/join"
)

func TestATokenIsReadAsItWasWritten(t *testing.T) {
	want := join.NewToken([32]byte{1, 2, 3})
	got, err := join.ParseToken(want.Reveal())
	if err != nil || got != want {
		t.Errorf("%v: another token", err)
	}
	if strings.ContainsAny(want.Reveal(), "@,$&' ") {
		t.Error("the token needs quotes")
	}
}

func TestATokenThatIsDamagedIsRefusedAndNotQuoted(t *testing.T) {
	text := join.NewToken([32]byte{1}).Reveal()
	for i := range text {
		for _, bad := range []string{text[:i], text[:i] + "b" + text[i+1:], text[:i] + text[i+1:]} {
			if _, err := join.ParseToken(bad); bad != text && err == nil {
				t.Errorf("%q was accepted", bad)
			} else if err != nil && len(bad) > 20 && strings.Contains(err.Error(), bad) {
				t.Errorf("the error quotes the token: %v", err)
			}
		}
	}
}

func TestATokenIsNotShown(t *testing.T) {
	token := join.NewToken([32]byte{1})
	secret := strings.Split(token.Reveal(), ".")[2]
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "token", token, "pointer", &token)
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "token", token)
	shown := fmt.Sprintf("%v %+v %#v %s %q %x", token, token, token, token, token, token) + log.String()
	if strings.Contains(shown, secret) || !strings.Contains(shown, token.ID) {
		t.Errorf("shown as %s", shown)
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(join.NewToken([32]byte{}).Reveal())
	f.Add("flt1.a.b.c.d")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := join.ParseToken(text); err == nil && token.Reveal() != text {
			t.Errorf("%q is read as %q", text, token.Reveal())
		}
	})
}
