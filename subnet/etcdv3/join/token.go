package join

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Token is what an operator gives to a host that is to join. Written out:
//
//	flt1.ID.SECRET.HASH.CHECK
//
// in lower-case base32, so that it needs no quotes in a shell. CHECK finds tokens that were not copied whole.
type Token struct {
	ID     string // names it in lists and logs; no secret
	secret [secretSize]byte
	CA     [sha256.Size]byte // authority.Hash
}

const (
	tokenForm  = "flt1"
	idSize     = 5 // bytes: 8 characters
	secretSize = 20
	checkSize  = 5
	tokenParts = 5
)

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewToken returns a token with a random secret, for a store with the authority.
func NewToken(ca [sha256.Size]byte) Token {
	t := Token{CA: ca, ID: random(idSize)}
	_, _ = rand.Read(t.secret[:]) // never fails
	return t
}

// random returns so many random bytes as a text.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return encoding.EncodeToString(b)
}

// Reveal returns the text of the token, with the secret.
func (t Token) Reveal() string {
	text := strings.Join([]string{tokenForm, t.ID, encoding.EncodeToString(t.secret[:]), encoding.EncodeToString(t.CA[:])},
		".")
	return text + "." + check(text)
}

// String implements fmt.Stringer, without the secret.
func (t Token) String() string { return "token " + t.ID }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Format implements fmt.Formatter, for all verbs.
func (t Token) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(t.String())) }

func check(text string) string {
	sum := sha256.Sum256([]byte(text))
	return encoding.EncodeToString(sum[:checkSize])
}

var errToken = errors.New("not a join token, or not all of it: copy it as \"flannelctl token create\" has printed it")

// ParseToken reads a token. Its error does not quote the text.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(text, ".")
	if len(parts) != tokenParts || parts[0] != tokenForm || !validID(parts[1]) {
		return Token{}, errToken
	}
	if body := text[:strings.LastIndexByte(text, '.')]; check(body) != parts[tokenParts-1] {
		return Token{}, errToken
	}
	t := Token{ID: parts[1]}
	if !decode(t.secret[:], parts[2]) || !decode(t.CA[:], parts[3]) {
		return Token{}, errToken
	}
	return t, nil
}

func validID(s string) bool {
	b, err := encoding.DecodeString(s)
	return err == nil && len(b) == idSize
}

func decode(to []byte, text string) bool {
	b, err := encoding.DecodeString(text)
	return err == nil && copy(to, b) == len(to) && len(b) == len(to)
}

// proof is what the store keeps of a secret: whoever reads it there cannot join with it. The secret is random and long,
// so that one round of the hash is enough.
func (t Token) proof() []byte {
	sum := sha256.Sum256(append([]byte("flannel join token "+t.ID+" "), t.secret[:]...))
	return sum[:]
}

// proves reports whether the secret is the one that the proof was made of, in constant time.
func (t Token) proves(proof []byte) bool { return subtle.ConstantTimeCompare(t.proof(), proof) == 1 }
