package message

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/dchest/siphash"
)

// Token settles one lease. Users see only its text (Seal); it names the
// message, the place where it stands, and the fence and session of the lease.
type Token struct {
	ID      ID
	Fence   uint64
	Session uint64 // 0: the lease is bound to a deadline, not to a session
	// Place is where the message stands if that is not where it was sent to: a
	// dead letter in another queue keeps its id. The zero ID: it stands at ID.
	Place ID
}

// Secret is the key of a keyed hash: 16 random bytes. The cluster has one that
// authenticates tokens, each queue one that places keys.
type Secret [16]byte

// MarshalText writes the secret as hex digits.
func (s Secret) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Secret) UnmarshalText(b []byte) error {
	if len(b) != 2*len(s) {
		return errors.New("a secret has 32 hex digits")
	}
	_, err := hex.Decode(s[:], b)
	return err
}

const (
	tokenVersion = 1
	tokenPlaced  = 1 << 7 // the token carries a place
	tagBytes     = 16
)

// Seal writes the token as text that only holders of the secret can make.
// The tag is SipHash-2-4-128, a keyed hash made for short inputs.
func (t Token) Seal(s *Secret) string {
	b := make([]byte, 0, 80)
	b = append(b, tokenVersion)
	b = append(b, t.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, t.Fence)
	b = binary.BigEndian.AppendUint64(b, t.Session)
	if t.Place != (ID{}) {
		b[0] |= tokenPlaced
		b = append(b, t.Place[:]...)
	}
	lo, hi := siphash.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), b)
	b = binary.BigEndian.AppendUint64(b, hi)
	b = binary.BigEndian.AppendUint64(b, lo)
	return base64.RawURLEncoding.EncodeToString(b)
}

// OpenToken reads what Seal wrote and refuses everything else.
func OpenToken(text string, s *Secret) (Token, error) {
	bad := func() (Token, error) {
		return Token{}, Errorf(InvalidArgument, "not a token of this cluster: use the token exactly as it was received")
	}
	if len(text) > 128 || strings.ContainsAny(text, "\r\n") { // which base64 would pass over
		return bad()
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+16+8+8+tagBytes {
		return bad()
	}
	body, tag := b[:len(b)-tagBytes], b[len(b)-tagBytes:]
	lo, hi := siphash.Hash128(binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:]), body)
	// One comparison of integers takes the same time whatever differs.
	if (binary.BigEndian.Uint64(tag[:8])^hi)|(binary.BigEndian.Uint64(tag[8:])^lo) != 0 {
		return bad()
	}
	t := Token{Fence: binary.BigEndian.Uint64(body[17:]), Session: binary.BigEndian.Uint64(body[25:])}
	copy(t.ID[:], body[1:17])
	switch {
	case body[0] == tokenVersion && len(body) == 33:
	case body[0] == tokenVersion|tokenPlaced && len(body) == 49:
		copy(t.Place[:], body[33:])
	default:
		return bad()
	}
	return t, nil
}

// At is where the message stands.
func (t Token) At() ID {
	if t.Place != (ID{}) {
		return t.Place
	}
	return t.ID
}
