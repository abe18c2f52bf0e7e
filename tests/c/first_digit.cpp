// The model from C++: prints what it takes the first held-out image for.
#include <algorithm>
#include <iostream>
#include <vector>

#include HEADER
#include "test_digits.h"

int main() {
    const tbc_model &model = MODEL;
    if (tbc_check(&model, tbc_cpu_bits()) != TBC_OK) return 2;
    std::vector<unsigned char> room(model.arena_size + model.align);
    const std::size_t past = reinterpret_cast<std::uintptr_t>(room.data()) % model.align;
    std::vector<float> x(TEST_PIXELS), logits(10);
    std::transform(test_images[0], test_images[0] + TEST_PIXELS, x.begin(),
                   [](uint8_t pixel) { return static_cast<float>(pixel) / 16; });
    const void *const inputs[] = {x.data()};
    void *const outputs[] = {logits.data()};
    void *const arena = room.data() + (model.align - past);
    const tbc_call call = {inputs, outputs, arena, nullptr, nullptr, nullptr, nullptr, nullptr};
    const int32_t status = model.run(&call);
    if (status != TBC_OK) {
        std::cerr << tbc_status_text(status) << '\n';
        return 1;
    }
    std::cout << std::max_element(logits.begin(), logits.end()) - logits.begin() << '\n';
    return test_labels[0] > 9;
}
