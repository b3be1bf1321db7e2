/* Says how long the board takes for a second of silence, then scores what comes in on the serial port: 16-bit samples,
 * low byte first, one channel, EDGEKD_SAMPLE_RATE of them a second of sound, as fast or as slowly as they come.
 *
 * A line a class and window: its name, its score in units of 1 / EDGEKD_ONE, and `heard` where that reaches the class's
 * threshold. */
#include <edgekd.h>
#include <edgekd_classes.h>

static edgekd_t classifier;
static const char *const names[] = EDGEKD_CLASS_NAMES;
static const int32_t heard_from[] = EDGEKD_HEARD_FROM;
static int16_t pcm[EDGEKD_FRAME_HOP];

static void silentSecond() {
  for (long left = EDGEKD_SAMPLE_RATE; left > 0; left -= EDGEKD_FRAME_HOP) edgekd_push(&classifier, pcm, EDGEKD_FRAME_HOP);
}

static void printScores() {
  int32_t scores[EDGEKD_CLASSES];
  edgekd_scores(&classifier, scores);
  for (int k = 0; k < EDGEKD_CLASSES; k++) {
    Serial.print(names[k]);
    Serial.print(' ');
    Serial.print((long)scores[k]);
    Serial.println(scores[k] >= heard_from[k] ? " heard" : "");
  }
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  edgekd_init(&classifier);
  for (long heard = 0; heard < EDGEKD_WINDOW_SAMPLES; heard += EDGEKD_SAMPLE_RATE) silentSecond();
  unsigned long start = micros();
  silentSecond();
  Serial.print("microseconds a second of sound ");
  Serial.println(micros() - start);
  edgekd_init(&classifier);
}

void loop() {
  static size_t at = 0;
  static uint8_t low;
  static bool half = false;
  while (Serial.available() > 0) {
    uint8_t byte = (uint8_t)Serial.read();
    if (half) pcm[at++] = (int16_t)(uint16_t)(low | byte << 8);
    low = byte;
    half = !half;
    if (at == EDGEKD_FRAME_HOP) {
      at = 0;
      if (edgekd_push(&classifier, pcm, EDGEKD_FRAME_HOP)) printScores();
    }
  }
}
