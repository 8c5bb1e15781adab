PRAGMA foreign_keys = ON;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;

CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY,
    login TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    about TEXT NOT NULL DEFAULT '',
    admin INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS sessions (
    -- The token itself is the client's alone.
    token_sha256 BLOB PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users ON DELETE CASCADE,
    expires INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    action TEXT NOT NULL,
    result TEXT NOT NULL,
    actor TEXT NOT NULL,
    target TEXT NOT NULL,
    ip TEXT NOT NULL,
    user_agent TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS products (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    about TEXT NOT NULL
);
CREATE VIRTUAL TABLE IF NOT EXISTS search USING fts5 (name, about);
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY,
    product INTEGER NOT NULL REFERENCES products
);
CREATE TABLE IF NOT EXISTS shipments (
    id INTEGER PRIMARY KEY,
    purchase INTEGER NOT NULL REFERENCES orders
);
CREATE TABLE IF NOT EXISTS posts (
    id INTEGER PRIMARY KEY,
    author INTEGER REFERENCES users ON DELETE SET NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS followers (email TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY,
    original BLOB NOT NULL,
    thumbnail BLOB
);

-- What there is to play with.
INSERT OR IGNORE INTO users (id, login, name, admin) VALUES (1, 'ada', 'Ada', 1), (2, 'bob', 'Bob', 0);
WITH RECURSIVE guest (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM guest WHERE number < 200)
INSERT OR IGNORE INTO users (id, login, name)
SELECT 100 + number, 'guest-' || number, 'Guest ' || number FROM guest;
INSERT OR IGNORE INTO products (id, name, about) VALUES
    (1, 'tea', 'A green one, from the hills.'),
    (2, 'teapot', 'Short and stout.');
INSERT OR REPLACE INTO search (rowid, name, about) SELECT id, name, about FROM products WHERE id <= 2;
INSERT OR IGNORE INTO orders (id, product) VALUES (1, 2);
-- There is no mailbox for the third.
INSERT OR IGNORE INTO followers (email) VALUES
    ('chloe@example.com'), ('dan@example.com'), ('bounce@example.com'), ('erin@example.com');
